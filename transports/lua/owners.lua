-- Stands between common.lua and the scripts that look at other owners: who is known, who holds what, who is excused.

-- Every known owner -> its session record, '' when that is lost. There are three records, so that what an owner holds
-- is found again when one or two of them got lost.
local function known_owners()
    local found, sessions = {}, call('HGETALL', SESSIONS)
    for _, owner in ipairs(call('SMEMBERS', OWNERS)) do found[owner] = '' end
    for _, owner in ipairs(call('ZRANGE', LEASES, 0, -1)) do found[owner] = '' end
    for i = 1, #sessions, 2 do found[sessions[i]] = sessions[i + 1] end
    return found
end

-- Those of the tags that no known owner holds.
local function held_by_nobody(tags, owners)
    for owner in pairs(owners) do
        if #tags == 0 then return tags end
        local rest, flags = {}, held_flags(tags, owner)
        for i, tag in ipairs(tags) do
            if flags[i] == 0 then rest[#rest + 1] = tag end
        end
        tags = rest
    end
    return tags
end

-- The lease of the session that took this message, in ms; nil when the tag is none of ours. A producer chooses the tags
-- of Celery's entries, so the form has to fit exactly.
local function lease_of_tag(tag)
    local session, lease, number = string.match(tag, '^(%x+)%.(%x+)%-(%d+):%d+:%d+:.')
    return session and #session == 17 and #number == 13 and #lease <= 12 and tonumber(lease, 16) or nil
end

-- Until when a silence explains that this lease was not renewed, 0 when none does: the lease had not ended before, and is
-- short enough to end because of it; then its owner has half of it to reconnect. Who renewed before a silence of less
-- than a quarter of its lease has enough left.
local function excused_until(ends_ms, lease_ms, now_ms)
    local latest = 0
    for _, silence in ipairs(call('ZRANGEBYSCORE', SILENCES, now_ms, '+inf')) do
        local from, till = string.match(silence, '^(%d+)%-(%d+)$')
        from, till = tonumber(from), tonumber(till)
        if from <= ends_ms and till - from > lease_ms / 4 then latest = math.max(latest, till + lease_ms / 2) end
    end
    return latest
end
