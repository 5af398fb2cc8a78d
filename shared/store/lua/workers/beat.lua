#!lua flags=allow-oom
-- At most 55 commands, and 2 for each adapter that is loaded.
-- ARGV: wid lease_ms info num_known {id claim_epoch}... loading...
-- Renews the worker's lease, and its exclusive rights to load the versions `loading`. Returns {number of
-- jobs that the worker owns, known jobs that it doesn't own, its cancelled jobs, number of versions that
-- the registry has deleted so far, number of versions that the worker holds in Redis, its mode: '' |
-- 'paused' | 'draining'}, or -1 if the worker was declared dead.
local wid, num_known = ARGV[1], tonumber(ARGV[4])
if not is_worker(wid) then return -1 end
renew_lease(wid, tonumber(ARGV[2]), ARGV[3], now_ms())
for i = 5 + 2 * num_known, #ARGV do
  local key = P .. 'load:' .. ARGV[i]
  if redis.call('GET', key) == wid then redis.call('PEXPIRE', key, LOAD_LOCK_MS) end
end
local fenced, cancelled = standing_of(wid, 5, num_known)
return { redis.call('ZCARD', P .. 'own:' .. wid), fenced, cancelled,
  tonumber(redis.call('HGET', P .. 'cnt', 'forgotten') or 0), redis.call('SCARD', P .. 'has:' .. wid),
  redis.call('HGET', P .. 'w:' .. wid, 'mode') or '' }
