-- Return the envelopes of in-flight messages of this owner. ARGV: 6… the tags. A message that is not held any more is
-- a nil; a tag without a message is forgotten.

local tags = arguments_from(6)
local found, gone = {}, {}
for i, flag in ipairs(held_flags(tags)) do
    local _, tail = read_tag(tags[i])
    found[i] = flag == 1 and envelope_of(tags[i], tail)
    if flag == 1 and not found[i] then gone[#gone + 1] = tags[i] end
end
if #gone > 0 then
    go_on_when_full()
    end_flight(OWNER, gone)
end
return found
