-- Settle for good and publish successors, for what this owner still holds.
--
-- ARGV: 6 how many tags, the tags, then eight for each successor: position of its message among the tags, token, wait
-- in ms ('' = none), list, side, envelope, task id, whether it has to get a lock of its own (0/1). Returns the tags that
-- were not held any more; their successors are not published.

go_on_when_full()
local count = tonumber(ARGV[6])
local tags = arguments_from(7, 6 + count)
local flags = held_flags(tags)
local now_s, now_ms = now_s_ms()

local function stands(tag) return call('HEXISTS', UNACKED, tag) == 1 or call('HEXISTS', ODD, tag) == 1 end

-- The locks that end with these messages, by tag; those that a successor (a retry) goes on bearing stay.
local ending = {}
if any_locks() then
    drop_ended_locks(now_ms)
    for i, tag in ipairs(tags) do
        local _, tail = read_tag(tag)
        local envelope = flags[i] == 1 and envelope_of(tag, tail)
        local name, nonce = seal_of(envelope or '')
        if name then ending[tag] = {name, nonce} end
    end
end

local function hand_on(tag, envelope, wait_ms)
    local name, nonce, lasts_ms = seal_of(envelope)
    if nonce ~= ending[tag][2] then return end
    ending[tag] = nil
    if call('HGET', LOCKS, name) == nonce then take_lock(name, nonce, lasts_ms, wait_ms, now_ms) end
end

for i = 7 + count, #ARGV, 8 do
    local tag, wait_ms = tags[tonumber(ARGV[i])], tonumber(ARGV[i + 2])
    if flags[tonumber(ARGV[i])] == 1 and stands(tag) then
        local token, list, side, envelope, task_id = ARGV[i + 1], unpack(ARGV, i + 3, i + 6)
        if ARGV[i + 7] == '1' then
            publish_once(token, wait_ms, list, side, envelope, now_ms, task_id)
        else
            publish(token, wait_ms, list, side, envelope, 0, now_ms, task_id)
            if ending[tag] then hand_on(tag, envelope, wait_ms) end
        end
    end
end

local mine, lost = {}, {}
for i, tag in ipairs(tags) do
    if flags[i] == 1 then mine[#mine + 1] = tag else lost[#lost + 1] = tag end
end
if in_chunks('HDEL', UNACKED, mine) < #mine then
    -- Rare: some stand in our own key, or were put back by a Celery worker, which clears hash and index together.
    for _, tag in ipairs(mine) do
        if call('HDEL', ODD, tag) == 0 and not call('ZSCORE', INDEX, tag) then lost[#lost + 1] = tag end
    end
end
in_chunks('ZREM', INDEX, mine)
let_go(OWNER, mine)
for _, lock in pairs(ending) do release(lock[1], lock[2]) end
return lost
