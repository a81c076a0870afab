-- End the lease of an owner that holds nothing. With something in its hands the lease runs out by itself.
--
-- ARGV: 6 session. Returns 1 when the owner is gone.

if call('EXISTS', HELD) == 1 or call('GET', LEASE) ~= ARGV[6] then return 0 end
call('DEL', LEASE)
call('SREM', OWNERS, OWNER)
return 1
