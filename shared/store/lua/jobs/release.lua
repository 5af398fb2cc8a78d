#!lua flags=allow-oom
-- At most 60 commands for each job; callers send 16 at a time.
-- ARGV: wid {id checkpoint}... Takes jobs from a live worker, with what it had shown of them beyond
-- their checkpoints, or ''. Returns how many were its.
local num, now = 0, now_ms()
for i = 2, #ARGV, 2 do
  if give_back(ARGV[1], ARGV[i], ARGV[i + 1], nil, now) then num = num + 1 end
end
return num
