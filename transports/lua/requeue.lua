-- Give back what this owner still holds, bytes untouched, in the given order.
--
-- ARGV: 6 add one to the crash counts (0/1), 7 wait in ms before they go to the back ('' = to the front now), 8… for
-- each message its tag and, with a wait, its task id.
-- Returns the tags that were not held any more.

local crash, wait_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
go_on_when_full()
local tags, task_ids = {}, {}
for i = 8, #ARGV, 2 do
    tags[#tags + 1], task_ids[#task_ids + 1] = ARGV[i], ARGV[i + 1]
end
local flags = held_flags(tags)
local now_s, now_ms = now_s_ms()
local gone, lost = {}, {}

-- To the front: the last one first, so that the first one is the next to be taken. In the delayed set equal times sort
-- by token, and tags sort by age.
local first, last, step = 1, #tags, 1
if not wait_ms then first, last, step = #tags, 1, -1 end
for i = first, last, step do
    local crashes, tail, list = read_tag(tags[i])
    local envelope = flags[i] == 1 and envelope_of(tags[i], tail)
    if envelope then
        publish(tags[i], wait_ms, list, wait_ms and 'B' or 'F', envelope, crashes + crash, now_ms, task_ids[i])
    else
        lost[#lost + 1] = tags[i]
    end
    if flags[i] == 1 then gone[#gone + 1] = tags[i] end
end
end_flight(OWNER, gone)
return lost
