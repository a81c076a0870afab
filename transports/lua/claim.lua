-- Take up to `limit` messages from the lists into flight under this owner.
--
-- KEYS: the lists, all queues of the first priority, then all of the next.
-- ARGV: 6 session, 7 lease in ms, 8 limit, 9 number before the first tag's, then for each list what follows the envelope
-- in kombu's entry; then the groups to read before the lists follow in their order (order.py): budget (0 = what is left),
-- how many lists, and for each its position, quota and weight. Returns {{list, count, list, count, …}, {envelope, …},
-- {position, crashes, …}, {list, …}}: positions are those of envelopes that have crashed a child before, the last lists
-- those that had no more. The caller builds the tags by the same rule.

local session, lease_ms, limit, number = ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local TAILS = 9
local FIRST_READ = 4 -- sizes are unknown before the first look: ten-megabyte messages must not be read by the hundred

-- A late command of a connection that this owner has given up must take nothing: nobody would read the reply.
local current = call('HGET', SESSIONS, OWNER)
if current and current ~= session .. ':' .. lease_ms then
    return redis.error_reply('FENCED another connection speaks for this owner now')
end

go_on_when_full()
local now_s, now_ms = now_s_ms()
move_due(now_ms)

-- 1. Read, oldest first (the right end of a list is its front).
local runs, envelopes, room, largest = {}, {}, BATCH_BYTES, 1
local taken, has_ended, ended = {}, {}, {}

local function read_list(at, want)
    if has_ended[at] then return 0 end
    local before, start = #envelopes, taken[at] or 0
    local got, chunk = start, math.min(want, FIRST_READ)
    while want > 0 and room > 0 do
        local found = call('LRANGE', KEYS[at], -got - chunk, -got - 1)
        for i = #found, 1, -1 do
            local envelope = found[i]
            envelopes[#envelopes + 1] = envelope
            room = room - #envelope
            if #envelope > largest then largest = #envelope end
        end
        got, want = got + #found, want - #found
        if #found < chunk then
            has_ended[at], ended[#ended + 1] = true, at
            break
        end
        chunk = math.max(1, math.min(want, CHUNK, math.floor(room / largest)))
    end
    if got > start then
        runs[#runs + 1], runs[#runs + 2] = at, #envelopes - before
        taken[at] = got
    end
    return got - start
end

-- First the quotas, in proportion when there is less to give than was planned; then, while some list has more, what is
-- left over by weight.
local function read_group(lists, budget)
    local left, planned = budget, budget
    local sum = 0
    for _, list in ipairs(lists) do sum = sum + list.want end
    if sum > planned then planned = sum end
    for _, list in ipairs(lists) do list.want = math.floor(list.want * budget / planned) end
    while #lists > 0 and left > 0 do
        local hungry, total = {}, 0
        for _, list in ipairs(lists) do
            local want = math.min(list.want, left)
            local got = read_list(list.at, want)
            left = left - got
            if got == list.want and not has_ended[list.at] then
                hungry[#hungry + 1] = list
                total = total + list.weight
            end
        end
        local most = 0
        for _, list in ipairs(hungry) do
            list.want = math.floor(left * list.weight / total)
            most = math.max(most, list.want)
        end
        if most == 0 and hungry[1] then hungry[1].want = 1 end
        lists = hungry
    end
    return budget - left
end

local at = TAILS + #KEYS + 1
while at < #ARGV and limit > 0 do
    local budget, count, lists = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), {}
    for i = at + 2, at + 3 * count, 3 do
        lists[#lists + 1] = {at = tonumber(ARGV[i]), want = tonumber(ARGV[i + 1]), weight = tonumber(ARGV[i + 2])}
    end
    limit = limit - read_group(lists, budget == 0 and limit or math.min(budget, limit))
    at = at + 2 + 3 * count
end
for list = 1, #KEYS do
    if limit > 0 and room > 0 then limit = limit - read_list(list, limit) end
end
if #envelopes == 0 then return {{}, {}, {}, {}} end

-- 2. Write them into flight.

-- Whether a Celery worker could put this back from `unacked`. It dies of an entry that is no JSON, and loses one whose
-- headers are no object, so those stand in a key of ours. What begins and ends like kombu's envelopes and has their
-- members is taken for one: parsing all of them would cost 3 µs each (half of everything this script does), and only
-- damage elsewhere in the middle is missed.
local find = string.find
local function kombu_can_restore(envelope)
    if find(envelope, '^{%s*"body"%s*:') and find(envelope, '}%s*}%s*$', -8)
        and find(envelope, '"headers": {', 1, true) and find(envelope, '"delivery_info": {', 1, true) then
        return true
    end
    if #envelope > 1048576 then return false end
    local fine, message = pcall(cjson.decode, envelope)
    local function is_object(value) return type(value) == 'table' and type(next(value)) == 'string' end
    return fine and is_object(message) and is_object(message.headers) and is_object(message.properties)
        and is_object(message.properties.delivery_info)
end

local entries, scores, tags, odd, crashed = {}, {}, {}, {}, {}
local entered, scored = 0, 0
local score = tostring(now_s) -- whole seconds: parsing a fraction doubles the cost of ZADD

local function enter(envelope, tail, tag)
    tags[#tags + 1] = tag
    -- The index has them all. A Celery worker that finds no entry to a tag takes the tag from the index, and no more.
    scores[scored + 1], scores[scored + 2] = score, tag
    scored = scored + 2
    if kombu_can_restore(envelope) then
        -- Counted by hand: #entries is a search.
        entries[entered + 1], entries[entered + 2] = tag, '[' .. envelope .. tail
        entered = entered + 2
    else
        odd[#odd + 1] = tag
        odd[#odd + 1] = envelope
    end
end

-- The crash count moves from the waiting message to its tag.
local function crashes_of(record, envelope, position)
    local hash = redis.sha1hex(envelope)
    local crashes = call('HGET', record, hash)
    if not crashes then return '0' end
    crashed[#crashed + 1], crashed[#crashed + 2] = position, tonumber(crashes)
    return crashes
end

local position = 0
for run = 1, #runs, 2 do
    local list, tail = string.sub(KEYS[runs[run]], #PREFIX + 1), ARGV[TAILS + runs[run]]
    local record, suffix = OWN .. 'crashes:' .. list, ':' .. #tail .. ':' .. list
    local seen_crashes = call('EXISTS', record) == 1
    for _ = 1, runs[run + 1] do
        position = position + 1
        local envelope = envelopes[position]
        local crashes = seen_crashes and crashes_of(record, envelope, position) or '0'
        enter(envelope, tail, session .. '-' .. (number + position) .. ':' .. crashes .. suffix)
    end
end
-- Tags first: should one of these fail, then what it leaves behind are tags without a message, which clear themselves
-- away, and no second message.
in_chunks('SADD', HELD, tags)
in_chunks('ZADD', INDEX, scores)
in_chunks('HSET', UNACKED, entries)
in_chunks('HSET', ODD, odd)
renew(now_ms, session, lease_ms)
if not current then call('SADD', OWNERS, OWNER) end -- it was taken for dead, or its record got lost

-- 3. Take them from the lists.
for at, count in pairs(taken) do
    call('LTRIM', KEYS[at], 0, -count - 1)
    local record = OWN .. 'crashes:' .. string.sub(KEYS[at], #PREFIX + 1)
    -- Counts of messages that left by another way (purged, taken by a Celery worker) end with the list.
    if call('EXISTS', KEYS[at]) == 0 then call('DEL', record) end
end
for i = 1, #crashed, 2 do
    local list = select(3, read_tag(tags[crashed[i]]))
    call('HDEL', OWN .. 'crashes:' .. list, redis.sha1hex(envelopes[crashed[i]]))
end
return {runs, envelopes, crashed, ended}
