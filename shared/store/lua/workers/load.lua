#!lua flags=allow-oom
-- At most 4 commands.
-- ARGV: wid version. Returns 1 when the worker may load the version for all: it waits, nobody holds
-- it, and no other worker loads it.
local wid, version = ARGV[1], ARGV[2]
local key = P .. 'load:' .. version
if not is_worker(wid) or not redis.call('ZSCORE', P .. 'cold', version) then return 0 end
if (redis.call('GET', key) or wid) ~= wid then return 0 end
redis.call('SET', key, wid, 'PX', LOAD_LOCK_MS)
return 1
