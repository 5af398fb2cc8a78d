#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: kind id. Records that a process is alive. `beat_api.lua` does this for front ends.
local now, lag = read_clock()
report_process(ARGV[1], ARGV[2], now - lag)
