-- Settle for good and publish successors, for what this owner still holds.
--
-- ARGV: 6 how many tags, the tags, then six for each successor: position of its message among the tags, token, wait
-- in ms ('' = none), list, side, envelope. Returns the tags that were not held any more; their successors are
-- not published.

go_on_when_full()
local count = tonumber(ARGV[6])
local tags = arguments_from(7, 6 + count)
local flags = held_flags(tags)
local now_s, now_ms = now_s_ms()

local function stands(tag) return call('HEXISTS', UNACKED, tag) == 1 or call('HEXISTS', ODD, tag) == 1 end

for i = 7 + count, #ARGV, 6 do
    local at = tonumber(ARGV[i])
    if flags[at] == 1 and stands(tags[at]) then
        publish(ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], 0, now_ms)
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
return lost
