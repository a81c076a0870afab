-- End the lease of an owner that holds nothing. With something in its hands the lease runs out by itself.
--
-- ARGV: 6 session, 7 lease in ms. Returns 1 when the owner is gone.

if call('EXISTS', HELD) == 1 or call('HGET', SESSIONS, OWNER) ~= ARGV[6] .. ':' .. ARGV[7] then return 0 end
call('ZREM', LEASES, OWNER)
call('HDEL', SESSIONS, OWNER)
call('SREM', OWNERS, OWNER)
call('SREM', STOPPING, OWNER)
call('DEL', STARTED)
return 1
