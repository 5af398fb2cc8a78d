#!lua flags=allow-oom
-- ARGV: wid num_added added... removed... Returns 0 when the worker was given up.
local wid, num_added = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
for i = 3, 2 + num_added do hold(wid, ARGV[i]) end
for i = 3 + num_added, #ARGV do unhold(wid, ARGV[i]) end
return 1
