#!lua flags=allow-oom
-- ARGV: name version created_s field value... Workers register their adapters again after a restart
-- and after a lost lease: that must neither lift the quarantine of the same weights, nor flip a name
-- back that a younger worker has flipped.
local name, version, created_s = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = P .. 'adapter:' .. name
local old = redis.call('HMGET', key, 'version', 'state', 'created_s')
if old[3] and tonumber(old[3]) > created_s then return end
local stays_quarantined = old[1] == version and old[2] == 'quarantined'
redis.call('HSET', key, unpack(ARGV, 4))
if stays_quarantined then redis.call('HSET', key, 'state', 'quarantined') end
if old[1] ~= version then redis.call('HDEL', key, 'dead_jobs') end
redis.call('SADD', P .. 'adapters', name)
