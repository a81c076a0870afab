-- Begin a session of this owner: from now on only claims with its token take anything.
--
-- ARGV: 6 session, 7 lease in ms.

go_on_when_full()
local now_s, now_ms = now_s_ms()
renew(now_ms, ARGV[6], ARGV[7])
call('HSET', SESSIONS, OWNER, ARGV[6] .. ':' .. ARGV[7])
