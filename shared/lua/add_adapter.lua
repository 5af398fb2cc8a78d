#!lua flags=allow-oom
-- ARGV: name version field value... A restarted worker registers its adapters again: that must not
-- lift the quarantine of the same weights.
local name, version = ARGV[1], ARGV[2]
local key = P .. 'adapter:' .. name
local old = redis.call('HMGET', key, 'version', 'state')
local stays_quarantined = old[1] == version and old[2] == 'quarantined'
redis.call('HSET', key, unpack(ARGV, 3))
if stays_quarantined then redis.call('HSET', key, 'state', 'quarantined') end
if old[1] ~= version then redis.call('HDEL', key, 'dead_jobs') end
redis.call('SADD', P .. 'adapters', name)
