#!lua flags=allow-oom
-- At most 4 commands.
-- ARGV: wid version. If jobs wait for the version, no worker holds it and no other worker loads it,
-- makes this worker the only one that may load it, and returns 1. Otherwise returns 0.
local wid, version = ARGV[1], ARGV[2]
local key = P .. 'load:' .. version
if not is_worker(wid) or not redis.call('ZSCORE', P .. 'cold', version) then return 0 end
if (redis.call('GET', key) or wid) ~= wid then return 0 end
redis.call('SET', key, wid, 'PX', LOAD_LOCK_MS)
return 1
