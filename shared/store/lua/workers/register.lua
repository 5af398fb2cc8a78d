#!lua flags=allow-oom
-- At most 60 commands.
-- ARGV: wid lease_ms info mode. Adds a worker to the pool. `residents.lua` records the versions that it
-- holds. `mode` is '' | 'paused' | 'draining'. Returns 'ok', or 'taken' if another worker of the pool has
-- the same short name.
local wid, lease_ms, mode = ARGV[1], tonumber(ARGV[2]), ARGV[4]
for _, other in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
  if other ~= wid and short_name(other) == short_name(wid) then return 'taken' end
end
if not is_registered(wid) then record_incident('worker_joined', 'worker', wid) end
renew_lease(wid, lease_ms, ARGV[3], now_ms())
redis.call('HSET', P .. 'w:' .. wid, 'knows_modes', 1)
if mode ~= '' then redis.call('HSET', P .. 'w:' .. wid, 'mode', mode) end
redis.call('ZREM', P .. 'lost', wid) -- in case a call is repeated after a lost reply
redis.call('HSET', P .. 'cnt', 'lease', lease_ms, 'slots', cjson.decode(ARGV[3]).max_num_seqs)
return 'ok'
