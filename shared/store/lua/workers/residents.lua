#!lua flags=allow-oom
-- At most 7 commands for each version; callers send 128 at a time.
-- ARGV: wid num_added added... removed... Changes the versions that the worker holds. Returns the
-- added versions that other workers hold too, or 0 if the worker was declared dead.
local wid, num_added = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local shared = {}
for i = 3, 2 + num_added do
  hold(wid, ARGV[i])
  if redis.call('SCARD', P .. 'on:' .. ARGV[i]) > 1 then shared[#shared + 1] = ARGV[i] end
end
for i = 3 + num_added, #ARGV do unhold(wid, ARGV[i]) end
return shared
