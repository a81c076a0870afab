-- Give up a lock, if it is still the caller's. KEYS: 1 the lock. ARGV: 6 the token that it was taken with.

if call('GET', KEYS[1]) == ARGV[6] then return call('DEL', KEYS[1]) end
return 0
