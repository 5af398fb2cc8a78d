#!lua flags=allow-oom
-- ARGV: wid id... Returns how many jobs were taken from the worker.
local moved = give_back(ARGV[1], { unpack(ARGV, 2) }, false, now_ms())
return moved[1] + moved[2]
