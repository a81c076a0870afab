-- Put back entries that vanished Celery workers have left in flight: each only if it still stands there as it was read.
--
-- ARGV: 6… for each entry: tag, score, SHA-1 of its bytes ('' = there is none), first and last byte of the envelope,
-- token for the dead-letter store, how many lists, then these; or, with no lists, the dead letter's JSON record and the
-- list that it would go back to ('' = none). Returns {how many came back, how many became dead letters, how many tags
-- have left the index}.

go_on_when_full()
local now_s, now_ms = now_s_ms()
local restored, buried, left = 0, 0, 0

local function is_unchanged(tag, score, digest, entry)
    local current = call('ZSCORE', INDEX, tag)
    return current and tonumber(current) == tonumber(score) and (entry and redis.sha1hex(entry) or '') == digest
end

local at = 6
while at <= #ARGV do
    local tag, token, count = ARGV[at], ARGV[at + 5], tonumber(ARGV[at + 6])
    local entry = call('HGET', UNACKED, tag)
    if is_unchanged(tag, ARGV[at + 1], ARGV[at + 2], entry) then
        local envelope = entry and string.sub(entry, tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]))
        if envelope and count == 0 then
            bury(token, ARGV[at + 7], ARGV[at + 8], envelope, now_ms)
            buried = buried + 1
        elseif envelope then
            for i = 1, count do put(token .. '-' .. i, ARGV[at + 6 + i], 'F', envelope, 0, now_ms) end
            restored = restored + 1
        end
        call('HDEL', UNACKED, tag)
        call('ZREM', INDEX, tag)
        call('ZREM', FOREIGN, ARGV[at + 1] .. ' ' .. tag)
        left = left + 1
    end
    at = at + 7 + (count == 0 and 2 or count)
end
return {restored, buried, left}
