-- Move due messages to their queues, and give back what owners hold whose lease has ended. In bounded batches.
--
-- ARGV: 6 lease of the caller in ms. Returns {moved, recovered, ms until the next due message or -1, 1 when there may be more}.

go_on_when_full()
local now_s, now_ms = now_s_ms()
hear(now_ms, tonumber(ARGV[6]))
local moved, more = move_due(now_ms)
local recovered = 0

-- What had been started when its owner died has one more crash; what only waited there has not.
local function recover(owner)
    local tags, bytes = call('SMEMBERS', OWN .. 'held:' .. owner), 0
    -- The youngest first, so that the oldest comes to stand at the very front.
    table.sort(tags, function(a, b) return a > b end)
    for _, tag in ipairs(tags) do
        if recovered >= BATCH or bytes > BATCH_BYTES then
            more = true
            return
        end
        local crashes, tail, list = read_tag(tag)
        local envelope = envelope_of(tag, tail)
        if envelope then
            crashes = crashes + call('SISMEMBER', OWN .. 'started:' .. owner, tag)
            put(tag, list, 'F', envelope, crashes, now_ms)
            recovered, bytes = recovered + 1, bytes + #envelope
        end
        end_flight(owner, {tag})
    end
end

-- Owners that have a session or a lease: if one of the two records is lost, what they hold is not.
local function owners_with_sessions()
    local sessions = call('HGETALL', SESSIONS)
    local found = {}
    for _, owner in ipairs(call('ZRANGE', LEASES, 0, -1)) do found[owner] = '' end
    for i = 1, #sessions, 2 do found[sessions[i]] = sessions[i + 1] end
    return found
end

-- A lease that ends later than its own length from now was begun before the clock was set back.
local function is_dead(owner, session)
    local lease_ms = tonumber(string.match(session, ':(%d+)$') or ARGV[6])
    local ends = tonumber(call('ZSCORE', LEASES, owner) or 0)
    local spared_until = tonumber(call('GET', AMNESTY) or 0) + lease_ms / 2
    return now_ms > spared_until and (ends <= now_ms or ends > now_ms + lease_ms)
end

-- One worker at a time looks for the dead, about once a second: each look asks for every owner's lease.
local lock = OWN .. 'recovery'
if call('SET', lock, OWNER, 'NX', 'PX', 1000) or call('GET', lock) == OWNER then
    for owner, session in pairs(owners_with_sessions()) do
        if owner ~= OWNER and is_dead(owner, session) then
            recover(owner)
            if call('EXISTS', OWN .. 'held:' .. owner) == 0 then
                call('ZREM', LEASES, owner)
                call('HDEL', SESSIONS, owner)
            end
        end
    end
end

local head = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
local wait_ms = head[2] and math.max(0, tonumber(head[2]) - now_ms) or -1
return {moved, recovered, wait_ms, more and 1 or 0}
