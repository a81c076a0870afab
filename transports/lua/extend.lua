-- Renew the lease of this owner and everything it holds.
--
-- ARGV: 6 session, 7 lease in ms, 8… the tags that the caller believes to hold. Returns those that it does not hold
-- any more.

go_on_when_full()
local now_s, now_ms = now_s_ms()
renew(now_ms, ARGV[6], ARGV[7])

local held = call('SMEMBERS', HELD)
local score = tostring(now_s)
local renewed, vanished = {}, {}
for first = 1, #held, CHUNK do
    local last = math.min(first + CHUNK - 1, #held)
    local scores = call('ZMSCORE', INDEX, unpack(held, first, last))
    for i = first, last do
        if scores[i - first + 1] then
            renewed[#renewed + 1], renewed[#renewed + 2] = score, held[i]
        elseif call('HEXISTS', ODD, held[i]) == 0 then
            vanished[#vanished + 1] = held[i] -- a Celery worker has put it back
        end
    end
end
in_chunks('ZADD', INDEX, renewed)
if #vanished > 0 then let_go(OWNER, vanished) end

local tags = arguments_from(8)
local lost = {}
for i, flag in ipairs(held_flags(tags)) do
    if flag == 0 then lost[#lost + 1] = tags[i] end
end
return lost
