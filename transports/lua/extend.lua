-- Renew the lease of this owner and everything it holds.
--
-- ARGV: 6 session, 7 lease in ms, 8… the tags that the caller believes to hold. Returns those that it does not hold
-- any more.

go_on_when_full()
local now_s, now_ms = now_s_ms()
renew(now_ms, ARGV[6], ARGV[7])
call('SADD', OWNERS, OWNER)

local function is_in_flight(tag) return call('HEXISTS', UNACKED, tag) == 1 or call('HEXISTS', ODD, tag) == 1 end

-- Tags are receipts: what is still in flight under ours has been given to nobody else. If no owner holds it, then our
-- set has got lost (an eviction policy may do that), and is made anew.
local tags = arguments_from(8)
local missing = {}
for i, flag in ipairs(held_flags(tags)) do
    if flag == 0 and lease_of_tag(tags[i]) and is_in_flight(tags[i]) then missing[#missing + 1] = tags[i] end
end
if #missing > 0 then in_chunks('SADD', HELD, held_by_nobody(missing, known_owners())) end

local held = call('SMEMBERS', HELD)
local score = tostring(now_s)
local renewed, vanished = {}, {}
for first = 1, #held, CHUNK do
    local last = math.min(first + CHUNK - 1, #held)
    local scores = call('ZMSCORE', INDEX, unpack(held, first, last))
    for i = first, last do
        if scores[i - first + 1] or is_in_flight(held[i]) then
            renewed[#renewed + 1], renewed[#renewed + 2] = score, held[i]
        else
            vanished[#vanished + 1] = held[i] -- a Celery worker has put it back
        end
    end
end
-- Never back: Celery workers judge scores by their own clocks, and take what looks old.
for first = 1, #renewed, CHUNK do
    call('ZADD', INDEX, 'GT', unpack(renewed, first, math.min(first + CHUNK - 1, #renewed)))
end
if #vanished > 0 then let_go(OWNER, vanished) end

local lost = {}
for i, flag in ipairs(held_flags(tags)) do
    if flag == 0 then lost[#lost + 1] = tags[i] end
end
return lost
