-- Delete the lists KEYS and what is remembered about their messages; return how many messages that were.

local count = 0
for _, key in ipairs(KEYS) do
    count = count + call('LLEN', key)
    call('DEL', key, OWN .. 'crashes:' .. string.sub(key, #PREFIX + 1))
end
return count
