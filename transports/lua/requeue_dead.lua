-- Put dead letters back at the end of the lists they came from, bytes untouched, with no crashes counted.
--
-- ARGV: 6… the tokens. Returns {how many, how many of the tokens were looked at}: a bounded batch, the caller goes on
-- behind it. A letter that cannot go back stays where it is: its key is no list now, or it bears a lock that another
-- message has taken.

go_on_when_full()
local now_s, now_ms = now_s_ms()

-- Only the end of a record is read: it is ours (bury), while the details may hold what cjson refuses. A quote inside a
-- name stands there with a backslash, so the last plain ', "list": ' is the one.
local function list_of(record)
    local name = string.match(record, '^.*, "list": (".*")}$')
    return name and cjson.decode('[' .. name .. ']')[1]
end

local count, bytes = 0, 0
for i = 6, #ARGV do
    local data = call('HGET', OWN .. 'dead:data', ARGV[i])
    local at = data and string.find(data, '\n', 1, true)
    local list = at and list_of(string.sub(data, 1, at - 1))
    if list then
        local envelope = string.sub(data, at + 1)
        local name, nonce, lasts_ms = seal_of(envelope)
        local may_go = not (name and is_locked(name, now_ms))
        if may_go and type(redis.pcall('LPUSH', PREFIX .. list, envelope)) == 'number' then
            if name then take_lock(name, nonce, lasts_ms, 0, now_ms) end
            call('HDEL', OWN .. 'crashes:' .. list, redis.sha1hex(envelope))
            call('ZREM', OWN .. 'dead', ARGV[i])
            call('HDEL', OWN .. 'dead:data', ARGV[i])
            count = count + 1
        end
        bytes = bytes + #data
    end
    if bytes > BATCH_BYTES then return {count, i - 5} end
end
return {count, #ARGV - 5}
