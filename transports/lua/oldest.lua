-- The delivery tag of the message that each list KEYS would give next; '' where there is none, or it has no tag.

local tags = {}
for position, key in ipairs(KEYS) do
    local envelope = call('LINDEX', key, -1)
    tags[position] = envelope and string.match(envelope, '"delivery_tag": "([%w-]+)"') or ''
end
return tags
