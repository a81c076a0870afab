-- Move what this owner still holds to the dead-letter store.
--
-- ARGV: 6… for each message its tag and its JSON record (an object with at least one member). The record is stored
-- with the list's name added, then a newline and the original bytes. Returns the tags that were not held any more.

local tags, records = {}, {}
for i = 6, #ARGV, 2 do
    tags[#tags + 1] = ARGV[i]
    records[#records + 1] = ARGV[i + 1]
end
go_on_when_full()
local flags = held_flags(tags)
local now_s, now_ms = now_s_ms()
local gone, lost = {}, {}

for i, tag in ipairs(tags) do
    local _, tail, list = read_tag(tag)
    local envelope = flags[i] == 1 and envelope_of(tag, tail)
    if envelope then
        bury(tag, records[i], list, envelope, now_ms)
    else
        lost[#lost + 1] = tag
    end
    if flags[i] == 1 then gone[#gone + 1] = tag end
end
end_flight(OWNER, gone)
return lost
