#!lua flags=allow-oom
-- ARGV: wid lease_ms info resident...
local wid = ARGV[1]
note_worker(wid, tonumber(ARGV[2]), ARGV[3], now_ms())
for i = 4, #ARGV do hold(wid, ARGV[i]) end
