-- Publish messages that have a due time. ARGV: 6… five for each: token, wait in ms, list, side, envelope.

local now_s, now_ms = now_s_ms()
for i = 6, #ARGV, 5 do
    publish(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], 0, now_ms)
end
return #ARGV
