-- Delete dead letters. ARGV: 6… the tokens. Returns how many.

go_on_when_full()
local tokens = arguments_from(6)
local count = in_chunks('HDEL', OWN .. 'dead:data', tokens)
in_chunks('ZREM', OWN .. 'dead', tokens)
return count
