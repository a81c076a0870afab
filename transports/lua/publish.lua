-- Publish messages that have a due time, or that bear a lock.
--
-- ARGV: 6… seven for each: token, wait in ms ('' = none), list, side, envelope, task id, whether it has to get its lock
-- (0/1). Returns the positions, from 1, of those that did not get it and were not published.

if OWNER ~= '' then go_on_when_full() end -- what follows a task that is acked already: its worker waits for it
local now_s, now_ms = now_s_ms()
local refused = {}
for i = 6, #ARGV, 7 do
    local token, wait_ms, list, side, envelope, task_id = ARGV[i], tonumber(ARGV[i + 1]), unpack(ARGV, i + 2, i + 5)
    if ARGV[i + 6] == '0' then
        publish(token, wait_ms, list, side, envelope, 0, now_ms, task_id)
    elseif not publish_once(token, wait_ms, list, side, envelope, now_ms, task_id) then
        refused[#refused + 1] = (i - 6) / 7 + 1
    end
end
return refused
