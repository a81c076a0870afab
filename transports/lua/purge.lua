-- Delete the lists KEYS and what is remembered about their messages. Returns {how many messages, 1 when there are more}:
-- where locks have to be released each message is looked at, and a batch is deleted at a time.

local has_locks = any_locks()
local count = 0

local function delete_some(key)
    local found = call('LRANGE', key, -BATCH, -1)
    for _, envelope in ipairs(found) do release_lock_of(envelope) end
    call('LTRIM', key, 0, -#found - 1)
    return #found
end

for _, key in ipairs(KEYS) do
    if has_locks and call('LLEN', key) > BATCH then return {count + delete_some(key), 1} end
    count = count + (has_locks and delete_some(key) or call('LLEN', key))
    call('DEL', key, OWN .. 'crashes:' .. string.sub(key, #PREFIX + 1))
end
return {count, 0}
