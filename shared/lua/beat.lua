#!lua flags=allow-oom
-- ARGV: wid lease_ms info loading... Returns how many jobs are booked on the worker; -1: it was
-- given up.
local wid = ARGV[1]
if not is_worker(wid) then return -1 end
note_worker(wid, tonumber(ARGV[2]), ARGV[3], now_ms())
for i = 4, #ARGV do
  local key = P .. 'load:' .. ARGV[i]
  if redis.call('GET', key) == wid then redis.call('PEXPIRE', key, LOAD_LOCK_MS) end
end
return redis.call('ZCARD', P .. 'own:' .. wid)
