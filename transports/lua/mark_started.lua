-- Mark what a child has begun to run, so that a worker which dies with it is known to have. ARGV: 6… the tags; those
-- that are not held any more are passed over, and all of an owner that is being stopped.

if call('SISMEMBER', STOPPING, OWNER) == 1 then return 0 end
go_on_when_full()
local tags = arguments_from(6)
local started = {}
for i, flag in ipairs(held_flags(tags)) do
    if flag == 1 then started[#started + 1] = tags[i] end
end
in_chunks('SADD', STARTED, started)
return #started
