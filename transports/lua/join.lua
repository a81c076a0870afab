-- Begin a session of this owner: from now on only claims with its token take anything.
--
-- ARGV: 6 session, 7 lease in ms.

go_on_when_full()
local now_s, now_ms = now_s_ms()
renew(now_ms, ARGV[6], ARGV[7])
call('SADD', OWNERS, OWNER)
local lease_ms, shortest_ms = tonumber(ARGV[7]), tonumber(call('GET', SHORTEST) or '')
if not shortest_ms or lease_ms < shortest_ms then call('SET', SHORTEST, lease_ms) end
call('HSET', SESSIONS, OWNER, ARGV[6] .. ':' .. ARGV[7])
