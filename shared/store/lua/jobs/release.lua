#!lua flags=allow-oom
-- At most 85 commands for each job; callers send 16 at a time.
-- ARGV: wid {id tokens}... Takes jobs from a live worker. `tokens` are the job's published tokens
-- that aren't in a checkpoint, or ''. Returns how many of the jobs the worker owned.
local num, now = 0, now_ms()
for i = 2, #ARGV, 2 do
  if give_back(ARGV[1], ARGV[i], ARGV[i + 1], nil, now, 'released') then num = num + 1 end
end
return num
