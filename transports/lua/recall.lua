-- Return the envelopes of in-flight messages of this owner. ARGV: 6… the tags. A message that is not held any more is
-- a nil.

local tags = arguments_from(6)
local found = {}
for i, flag in ipairs(held_flags(tags)) do
    local _, tail = read_tag(tags[i])
    found[i] = flag == 1 and envelope_of(tags[i], tail)
end
return found
