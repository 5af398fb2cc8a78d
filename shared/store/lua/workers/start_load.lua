#!lua flags=allow-oom
-- At most 4 commands.
-- ARGV: wid version. Gives the worker the exclusive right to load a version if jobs of the version
-- wait, no worker holds it, and no other worker loads it. Returns 1, or 0 if it doesn't get the right.
local wid, version = ARGV[1], ARGV[2]
local key = P .. 'load:' .. version
if not is_worker(wid) or not redis.call('ZSCORE', P .. 'cold', version) then return 0 end
if (redis.call('GET', key) or wid) ~= wid then return 0 end
redis.call('SET', key, wid, 'PX', LOAD_LOCK_MS)
return 1
