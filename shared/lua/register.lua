#!lua flags=allow-oom
-- ARGV: wid lease_ms info resident...
local wid, lease_ms = ARGV[1], tonumber(ARGV[2])
local now = now_ms()
redis.call('ZADD', P .. 'workers', now + lease_ms, wid)
redis.call('HSET', P .. 'w:' .. wid, 'info', ARGV[3], 'beat', now, 'lease', lease_ms)
redis.call('PEXPIRE', P .. 'w:' .. wid, WORKER_TTL_MS)
for i = 4, #ARGV do hold(wid, ARGV[i]) end
