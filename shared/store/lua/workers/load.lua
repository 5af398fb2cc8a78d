#!lua flags=allow-oom
-- At most 4 commands.
-- ARGV: wid version. Makes the worker the only one that loads the version, and returns 1, if jobs wait
-- for the version, no worker holds it and no other worker loads it. Else returns 0.
local wid, version = ARGV[1], ARGV[2]
local key = P .. 'load:' .. version
if not is_worker(wid) or not redis.call('ZSCORE', P .. 'cold', version) then return 0 end
if (redis.call('GET', key) or wid) ~= wid then return 0 end
redis.call('SET', key, wid, 'PX', LOAD_LOCK_MS)
return 1
