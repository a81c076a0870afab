-- Delete the delayed messages of tasks. ARGV: 6… task ids. Returns those of which there were any.

go_on_when_full()
local has_locks = any_locks()

local function discard(token)
    if not call('ZSCORE', DELAYED, token) then return false end
    local data = has_locks and call('HGET', DELAYED_DATA, token)
    if data then release_lock_of(data) end
    end_delay(token)
    return true
end

local found = {}
for i = 6, #ARGV do
    local highest = string.match(call('HGET', TWINS, ARGV[i]) or '1', '^%d+')
    local some = discard('id:' .. ARGV[i])
    for number = 2, tonumber(highest) do some = discard('id' .. number .. ':' .. ARGV[i]) or some end
    if some then found[#found + 1] = ARGV[i] end
end
return found
