-- Move due messages to their queues, and give back what is held by owners that are dead or unknown. In bounded batches.
--
-- ARGV: 6 lease of the caller in ms, 7 kombu's visibility timeout in ms. Returns {moved, recovered, ms until the next due
-- message or -1, 1 when there may be more, how many entries in flight are older than the visibility timeout, ms until
-- somebody may have died or -1}.

local LEASE_MS, VISIBILITY_S = tonumber(ARGV[6]), tonumber(ARGV[7]) / 1000
local WALK = OWN .. 'walk' -- how many of the old entries in flight are still to be looked at
local STEP = 2000 -- of them in one look: each costs about 5 µs
local STRAY_MS = math.min(LEASE_MS * 1.5, 45000, VISIBILITY_S * 1000) -- what is younger is not looked at
local SAMPLE = 500 -- of the notes on foreign entries: so many are checked in one look

go_on_when_full()
local now_s, now_ms = now_s_ms()
hear(now_ms, LEASE_MS)
local moved, more = move_due(now_ms)
local recovered, bytes = 0, 0
local look_ms -- when to look for the dead again

-- Kombu judges its entries by scores that clocks of Celery workers have made, which may differ from the server's by any
-- amount. So it is noted since when each has stood there unchanged (redis_stale.py).
local function notice(notes)
    for first = 1, #notes, CHUNK do
        call('ZADD', FOREIGN, 'NX', unpack(notes, first, math.min(first + CHUNK - 1, #notes)))
    end
end

local function forget_foreign()
    local gone = {}
    for _, note in ipairs(call('ZRANDMEMBER', FOREIGN, SAMPLE)) do
        local score, tag = string.match(note, '^(%S+) (.*)$')
        if tonumber(call('ZSCORE', INDEX, tag) or '') ~= tonumber(score) then gone[#gone + 1] = note end
    end
    in_chunks('ZREM', FOREIGN, gone)
end

-- Whether this entry ends as ours do: a producer could have chosen a tag that looks like ours.
local function is_ours(tag, tail)
    local entry = call('HGET', UNACKED, tag)
    return not entry or string.sub(entry, -tail, 5 - tail) == ', "", '
end

-- Put back one message of somebody who is gone; false when this call has moved enough already. What had been started
-- when its owner died has one more crash; what only waited there has not.
local function restore(tag, owner)
    if recovered >= BATCH or bytes > BATCH_BYTES then
        more = true
        return false
    end
    local crashes, tail, list = read_tag(tag)
    local envelope = envelope_of(tag, tail)
    if envelope then
        local score = not owner and not is_ours(tag, tail) and call('ZSCORE', INDEX, tag)
        if score then
            notice({now_ms, score .. ' ' .. tag})
            return true
        end
        if owner then crashes = crashes + call('SISMEMBER', OWN .. 'started:' .. owner, tag) end
        put(tag, list, 'F', envelope, crashes, now_ms)
        recovered, bytes = recovered + 1, bytes + #envelope
    end
    end_flight(owner or OWNER, {tag})
    return true
end

local function forget(owner)
    call('ZREM', LEASES, owner)
    call('HDEL', SESSIONS, owner)
    call('SREM', OWNERS, owner)
    call('SREM', STOPPING, owner)
    call('DEL', OWN .. 'started:' .. owner)
end

local function recover(owner)
    local tags = call('SMEMBERS', OWN .. 'held:' .. owner)
    -- The youngest first, so that the oldest comes to stand at the very front.
    table.sort(tags, function(a, b) return a > b end)
    for _, tag in ipairs(tags) do
        if not restore(tag, owner) then return end
    end
    forget(owner)
end

-- Without a session record, what it holds tells. Who holds nothing has nothing to lose.
local function lease_of(owner, session)
    local lease = string.match(session, ':(%d+)$')
    if lease then return tonumber(lease) end
    local tag = call('SRANDMEMBER', OWN .. 'held:' .. owner)
    return tag and lease_of_tag(tag) or LEASE_MS
end

-- A lease that ends later than its own length from now was begun before the clock was set back. Who has lost the record
-- of its lease may live: it gets one, which it renews or not.
local function is_dead(owner, lease_ms)
    local ends_ms = tonumber(call('ZSCORE', LEASES, owner) or '')
    if not ends_ms then
        call('ZADD', LEASES, now_ms + lease_ms, owner)
        return false
    end
    local until_ms = ends_ms
    if ends_ms <= now_ms or ends_ms > now_ms + lease_ms then
        until_ms = excused_until(ends_ms, lease_ms, now_ms)
        if now_ms > until_ms then return true end
    end
    look_ms = math.min(look_ms or until_ms, until_ms)
    return false
end

local function bury_the_dead(owners)
    local shortest_ms = LEASE_MS
    for owner, session in pairs(owners) do
        local lease_ms = lease_of(owner, session)
        if owner ~= OWNER and is_dead(owner, lease_ms) then
            recover(owner)
        else
            shortest_ms = math.min(shortest_ms, lease_ms)
        end
    end
    call('SET', SHORTEST, shortest_ms)
end

-- Whether nobody has renewed this entry for one and a half of the lease under which it was taken: then its owner has
-- neither lived nor known of it for so long. Scores are whole seconds, so one more.
local function is_stray(tag, score)
    local lease_ms = lease_of_tag(tag)
    local ends_ms = score * 1000 + 1000 + lease_ms
    return now_ms > ends_ms + lease_ms / 2 and now_ms > excused_until(ends_ms, lease_ms, now_ms)
end

-- What no known owner holds is found by its age, a step with each call, from the younger ones to the oldest, so that
-- these come to stand at the very front. A position is no name: entries that come and go may let the walk pass over
-- others, which the next one finds.
local function walk(owners)
    local old = call('ZCOUNT', INDEX, '-inf', '(' .. now_s - STRAY_MS / 1000)
    if old == 0 then return end
    local left = tonumber(call('GET', WALK) or 0)
    if left <= 0 or left > old then left = old end
    local first = math.max(0, left - STEP)
    local found, strays = call('ZRANGE', INDEX, first, left - 1, 'WITHSCORES'), {}
    local notes, noted, now_text = {}, 0, tostring(now_ms)
    for i = #found - 1, 1, -2 do
        if not lease_of_tag(found[i]) then
            notes[noted + 1], notes[noted + 2] = now_text, found[i + 1] .. ' ' .. found[i]
            noted = noted + 2
        elseif is_stray(found[i], tonumber(found[i + 1])) then
            strays[#strays + 1] = found[i]
        end
    end
    notice(notes)
    for _, tag in ipairs(held_by_nobody(strays, owners)) do
        if not restore(tag) then return end
        more = more or first > 0
    end
    call('SET', WALK, first)
end

-- One worker at a time looks for the dead, about once a second: each look asks for every owner's lease.
local lock = OWN .. 'recovery'
if call('SET', lock, OWNER, 'NX', 'PX', 1000) or call('GET', lock) == OWNER then
    local owners = known_owners()
    bury_the_dead(owners)
    walk(owners)
    forget_foreign()
end

local head = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')
local wait_ms = head[2] and math.max(0, tonumber(head[2]) - now_ms) or -1
local stale = call('ZCOUNT', INDEX, '-inf', '(' .. now_s - VISIBILITY_S)
return {moved, recovered, wait_ms, more and 1 or 0, stale, look_ms and math.max(1, look_ms - now_ms + 1) or -1}
