#!lua flags=allow-oom
-- At most 50 commands.
-- ARGV: wid lease_ms info. Adds a worker to the pool. `residents.lua` records the versions that it
-- holds.
local wid, lease_ms = ARGV[1], tonumber(ARGV[2])
if not is_registered(wid) then record_incident('worker_joined', 'worker', wid) end
renew_lease(wid, lease_ms, ARGV[3], now_ms())
redis.call('ZREM', P .. 'lost', wid) -- in case a call is repeated after a lost reply
redis.call('HSET', P .. 'cnt', 'lease', lease_ms, 'slots', cjson.decode(ARGV[3]).max_num_seqs)
