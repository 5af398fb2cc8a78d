#!lua flags=allow-oom
-- ARGV: wid lease_ms info loading... Returns how many jobs are booked on the worker; -1: it was
-- given up.
local wid, lease_ms = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return -1 end
local now = now_ms()
redis.call('ZADD', P .. 'workers', now + lease_ms, wid)
redis.call('HSET', P .. 'w:' .. wid, 'info', ARGV[3], 'beat', now, 'lease', lease_ms)
redis.call('PEXPIRE', P .. 'w:' .. wid, WORKER_TTL_MS)
for i = 4, #ARGV do
  local key = P .. 'load:' .. ARGV[i]
  if redis.call('GET', key) == wid then redis.call('PEXPIRE', key, LOAD_LOCK_MS) end
end
return redis.call('ZCARD', P .. 'own:' .. wid)
