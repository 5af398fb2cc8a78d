#!lua flags=allow-oom
-- At most 10 commands. Adds a worker to the pool. `residents` records the versions that it holds.
-- ARGV: wid lease_ms info
local wid, lease_ms = ARGV[1], tonumber(ARGV[2])
renew_lease(wid, lease_ms, ARGV[3], now_ms())
redis.call('ZREM', P .. 'lost', wid) -- if the call is repeated after a lost reply
redis.call('HSET', P .. 'cnt', 'lease', lease_ms)
