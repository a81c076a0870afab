-- Stands in front of every script: names, time, and the moves that several scripts share.
--
-- Rules of these scripts:
-- 1. A message is written to its new place before it is taken from the old one. A script that fails half-way (a key of
--    the wrong type, a missing permission) then leaves a message twice, never nowhere.
-- 2. Only the server's clock is used. Due times arrive as waits: the caller's clock may differ from the server's.
-- 3. A script may be sent again after its reply was lost: what was carried out is not carried out twice.
--
-- ARGV: 1 key prefix, 2 kombu's unacked hash, 3 its index, 4 the channel for due times, 5 the owner; 6… the script's
-- own. In flight a message has a tag, made by the claim: session-number:crashes:tail:list. The session ends in a dot and
-- its lease in ms (hexadecimal), "tail" is how many bytes follow the envelope in kombu's entry, "list" the list it came
-- from (without the prefix). Tags of one session sort by age.

local call = redis.call
local PREFIX, UNACKED, INDEX, CHANNEL, OWNER = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local OWN = PREFIX .. 'qworker:'
local HELD = OWN .. 'held:' .. OWNER
local STARTED = OWN .. 'started:' .. OWNER -- those of them that a child has begun to run
local STOPPING = OWN .. 'stopping' -- owners that have been told to stop: nothing of theirs is marked
local LEASES = OWN .. 'leases' -- owner -> when its lease ends, in ms
local SESSIONS = OWN .. 'sessions' -- owner -> session:lease in ms
local RENEWED = OWN .. 'renewed' -- when a worker was last heard of, in ms
local SHORTEST = OWN .. 'shortest' -- the shortest lease of any owner, in ms
local SILENCES = OWN .. 'silences' -- "from-until" of times without a sign of any worker -> when it matters no more, in ms
local OWNERS = OWN .. 'owners' -- whoever has joined and neither left nor been found dead
local FOREIGN = OWN .. 'foreign' -- "score tag" of Celery's entries in flight -> when first seen so, in ms
local ODD = OWN .. 'odd' -- tag -> envelope that kombu could not restore
local DELAYED, DELAYED_DATA = OWN .. 'delayed', OWN .. 'delayed:data'
local TWINS = OWN .. 'delayed:twins' -- task id -> "highest number, how many" of its delayed messages beyond the first
local LOCKS, LOCK_ENDS = OWN .. 'unique', OWN .. 'unique:ends' -- lock -> nonce; lock -> when it ends by itself, in ms

local CHUNK = 1000 -- arguments in one command: Lua's unpack takes some thousands
local BATCH = 500 -- messages moved by one call of a housekeeping script
local BATCH_BYTES = 16777216 -- and their bytes: the server serves nobody else meanwhile

local function now_s_ms()
    local time = call('TIME')
    return tonumber(time[1]), tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- With `maxmemory` reached, Redis refuses a script whose first write needs memory. Moves that settle or drain must
-- still happen, or the memory would never get free: a first write that needs none opens the way for the others.
local function go_on_when_full() call('DEL', OWN .. 'nothing') end

-- A silence excuses owners whose lease is shorter than four times itself, and them for half their lease (owners.lua).
-- One of unknown length (a clock that was set back, a lost note) excuses everybody.
local function note_silence(from_ms, now_ms)
    if from_ms == 0 then call('DEL', SILENCES) end
    local ends_to_matter = from_ms == 0 and now_ms + 86400000 or now_ms + 2 * (now_ms - from_ms)
    call('ZREMRANGEBYSCORE', SILENCES, '-inf', '(' .. now_ms)
    call('ZADD', SILENCES, ends_to_matter, from_ms .. '-' .. now_ms)
end

-- Note that a worker has been heard of. Leases go on ending while the server is down or frozen, and their owners run
-- their tasks all the same. A living worker is heard of each sixth of its lease, so a quarter of the shortest lease is a
-- silence.
local function hear(now_ms, lease_ms)
    local known = call('MGET', RENEWED, SHORTEST)
    local heard_ms, shortest_ms = tonumber(known[1] or ''), tonumber(known[2] or '')
    if not heard_ms then
        if call('EXISTS', SESSIONS, LEASES, OWNERS) > 0 then note_silence(0, now_ms) end
    elseif heard_ms > now_ms then
        note_silence(0, now_ms)
    elseif now_ms - heard_ms > math.min(lease_ms, shortest_ms or lease_ms) / 4 then
        note_silence(heard_ms, now_ms)
    end
    call('SET', RENEWED, now_ms)
end

-- Begin or renew the lease of this owner. A late command of an earlier session may renew, but speaks for nobody.
local function renew(now_ms, session, lease_ms)
    hear(now_ms, tonumber(lease_ms))
    call('HSETNX', SESSIONS, OWNER, session .. ':' .. lease_ms)
    call('ZADD', LEASES, now_ms + lease_ms, OWNER)
end

-- Call a command with any number of arguments; returns the sum of the replies.
local function in_chunks(command, key, arguments)
    local total = 0
    for first = 1, #arguments, CHUNK do
        total = total + call(command, key, unpack(arguments, first, math.min(first + CHUNK - 1, #arguments)))
    end
    return total
end

local function arguments_from(first, last)
    local found = {}
    for i = first, last or #ARGV do found[#found + 1] = ARGV[i] end
    return found
end

local function read_tag(tag)
    local crashes, tail, list = string.match(tag, '^[^:]*:(%d+):(%d+):(.*)$')
    return tonumber(crashes), tonumber(tail), list
end

-- The envelope of an in-flight message, or false when somebody else has put it back meanwhile.
local function envelope_of(tag, tail)
    local entry = call('HGET', UNACKED, tag)
    if entry then return string.sub(entry, 2, -tail - 1) end
    return call('HGET', ODD, tag)
end

-- For each tag 1 when this owner (or another one) holds it, else 0.
local function held_flags(tags, owner)
    local flags, held_key = {}, owner and OWN .. 'held:' .. owner or HELD
    for first = 1, #tags, CHUNK do
        local part = call('SMISMEMBER', held_key, unpack(tags, first, math.min(first + CHUNK - 1, #tags)))
        for i = 1, #part do flags[#flags + 1] = part[i] end
    end
    return flags
end

-- An owner's claims on messages end, and with them the marks of what was started. Few owners have marks: short tasks
-- get none.
local function let_go(owner, tags)
    if call('EXISTS', OWN .. 'started:' .. owner) == 1 then in_chunks('SREM', OWN .. 'started:' .. owner, tags) end
    in_chunks('SREM', OWN .. 'held:' .. owner, tags)
end

-- The last step of settling: the message has its new place already.
local function end_flight(owner, tags)
    in_chunks('HDEL', UNACKED, tags)
    in_chunks('ZREM', INDEX, tags)
    in_chunks('HDEL', ODD, tags)
    let_go(owner, tags)
end

-- The lock that a message bears in its header (transports/unique.py): name, nonce, how long it lasts in ms.
local function seal_of(envelope)
    local at = 1
    while true do
        local _, last = string.find(envelope, '"unique": "', at, true)
        if not last then return nil end
        local name, nonce, lasts_ms = string.match(envelope, '^(%x+)%-(%x+)%-(%d+)"', last + 1)
        if name and #name == 40 and #nonce == 16 and #lasts_ms <= 15 then return name, nonce, tonumber(lasts_ms) end
        at = last + 1
    end
end

-- Without locks, nobody needs to look into messages.
local function any_locks() return call('EXISTS', LOCKS) == 1 end

local function release(name, nonce)
    if call('HGET', LOCKS, name) ~= nonce then return end
    call('HDEL', LOCKS, name)
    call('ZREM', LOCK_ENDS, name)
end

local function release_lock_of(envelope)
    local name, nonce = seal_of(envelope)
    if name then release(name, nonce) end
end

-- Locks that nobody has released: their messages were run by a Celery worker, or are lost.
local function drop_ended_locks(now_ms)
    local ended = call('ZRANGEBYSCORE', LOCK_ENDS, '-inf', now_ms, 'LIMIT', 0, CHUNK)
    in_chunks('HDEL', LOCKS, ended)
    in_chunks('ZREM', LOCK_ENDS, ended)
end

local function is_locked(name, now_ms)
    return call('HEXISTS', LOCKS, name) == 1 and tonumber(call('ZSCORE', LOCK_ENDS, name) or now_ms) > now_ms
end

-- The lock lasts from when the message is due.
local function take_lock(name, nonce, lasts_ms, wait_ms, now_ms)
    call('HSET', LOCKS, name, nonce)
    call('ZADD', LOCK_ENDS, now_ms + math.max(0, wait_ms or 0) + lasts_ms, name)
end

local function bury(token, record, list, envelope, now_ms)
    if list ~= '' then record = string.sub(record, 1, -2) .. ', "list": ' .. cjson.encode(list) .. '}' end
    call('HSET', OWN .. 'dead:data', token, record .. '\n' .. envelope)
    call('ZADD', OWN .. 'dead', now_ms, token)
    if any_locks() then release_lock_of(envelope) end
end

-- Keys of kombu's and of our own. A list in the place of one of them would stop every worker for good.
local function is_reserved(list)
    local key = PREFIX .. list
    if key == UNACKED or key == INDEX or list == 'unacked_mutex' then return true end
    return string.sub(list, 1, 8) == 'qworker:' or string.sub(list, 1, 7) == '_kombu.'
end

-- Put a message on its list; true when it stands there. side: B = back (the last to be taken), F = front (the next). A
-- key that is no list must neither lose the message nor hold up the others: it goes to the dead-letter store.
local function put(token, list, side, envelope, crashes, now_ms)
    local done
    if is_reserved(list) then
        done = {err = 'a key of the transport itself, not a queue'}
    else
        done = redis.pcall(side == 'F' and 'RPUSH' or 'LPUSH', PREFIX .. list, envelope)
    end
    if type(done) == 'number' then
        -- A waiting message's crash count is found by its bytes, which are never touched.
        if crashes > 0 then call('HSET', OWN .. 'crashes:' .. list, redis.sha1hex(envelope), crashes) end
        return true
    end
    local record = {queue = list, reason = 'queue_unusable', crashes = crashes, details = {error = done.err}}
    bury(token, cjson.encode(record), list, envelope, now_ms)
end

-- The token of a delayed message is made of its task id, so that revoking needs no search. A second message of the same
-- id gets a number.
local function delayed_token(task_id)
    if not call('ZSCORE', DELAYED, 'id:' .. task_id) then return 'id:' .. task_id end
    local highest, count = string.match(call('HGET', TWINS, task_id) or '1 0', '^(%d+) (%d+)$')
    call('HSET', TWINS, task_id, (highest + 1) .. ' ' .. (count + 1))
    return 'id' .. (highest + 1) .. ':' .. task_id
end

-- The last step of leaving the delayed set: the message has its new place already.
local function end_delay(token)
    call('ZREM', DELAYED, token)
    call('HDEL', DELAYED_DATA, token)
    local task_id = string.match(token, '^id%d+:(.*)$')
    if not task_id then return end
    local highest, count = string.match(call('HGET', TWINS, task_id) or '', '^(%d+) (%d+)$')
    if count and tonumber(count) > 1 then
        call('HSET', TWINS, task_id, highest .. ' ' .. (count - 1))
    else
        call('HDEL', TWINS, task_id)
    end
end

-- Publish at once or, with a wait above 0, later; true when it stands there. Equal due times sort by token, and tokens
-- by age; where the token says nothing of age, its number is added as a fraction of a millisecond.
local function publish(token, wait_ms, list, side, envelope, crashes, now_ms, task_id)
    if not wait_ms or wait_ms <= 0 then return put(token, list, side, envelope, crashes, now_ms) end
    local due_ms = now_ms + 1 + wait_ms -- rounded up: never too early
    if task_id and task_id ~= '' then
        due_ms = due_ms + tonumber(string.match(token, '%-(%d+)') or 0) % 4096 / 4096
        token = delayed_token(task_id)
    end
    call('HSET', DELAYED_DATA, token, crashes .. ' ' .. side .. ' ' .. #list .. ' ' .. list .. envelope)
    call('ZADD', DELAYED, due_ms, token)
    if call('ZRANGE', DELAYED, 0, 0)[1] == token then call('PUBLISH', CHANNEL, due_ms) end
    return true
end

-- Publish a message that bears a lock, unless another message has it; false then. The same message does not come twice.
local function publish_once(token, wait_ms, list, side, envelope, now_ms, task_id)
    local name, nonce, lasts_ms = seal_of(envelope)
    if name and is_locked(name, now_ms) then return false end
    drop_ended_locks(now_ms)
    local stands = publish(token, wait_ms, list, side, envelope, 0, now_ms, task_id)
    if stands and name then take_lock(name, nonce, lasts_ms, wait_ms, now_ms) end
    return true
end

-- Move what is due, oldest first. Returns how many, and whether there may be more.
local function move_due(now_ms)
    local due = call('ZRANGEBYSCORE', DELAYED, '-inf', '(' .. now_ms + 1, 'LIMIT', 0, BATCH)
    local bytes = 0
    for moved, token in ipairs(due) do
        local data = call('HGET', DELAYED_DATA, token)
        if data then
            local crashes, side, length, start = string.match(data, '^(%d+) ([BF]) (%d+) ()')
            local list = string.sub(data, start, start + length - 1)
            put(token, list, side, string.sub(data, start + length), tonumber(crashes), now_ms)
            bytes = bytes + #data
        end
        end_delay(token)
        if bytes > BATCH_BYTES then return moved, true end
    end
    return #due, #due == BATCH
end
