-- Begin a session of this owner: from now on only claims with its token take anything.
--
-- ARGV: 6 session, 7 lease in ms.

go_on_when_full()
call('SET', LEASE, ARGV[6], 'PX', ARGV[7])
call('SADD', OWNERS, OWNER)
