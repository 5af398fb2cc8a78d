#!lua flags=allow-oom
-- At most 10 commands. What the worker holds is told by `residents`.
-- ARGV: wid lease_ms info
local wid, lease_ms = ARGV[1], tonumber(ARGV[2])
note_worker(wid, lease_ms, ARGV[3], now_ms())
redis.call('ZREM', P .. 'lost', wid) -- a call that is repeated after a lost reply
redis.call('HSET', P .. 'cnt', 'lease', lease_ms)
