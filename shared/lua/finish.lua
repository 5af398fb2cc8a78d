#!lua flags=allow-oom
-- ARGV: wid id try state usage error num_tokens event result is_ours. Returns 'ok' | 'again' | 'fenced'.
local wid, id, try, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local RUN_MS_SHARE = 1 / 16
local job = read_job(id, 'state', 'owner', 'by', 'try', 'out', 'retain', 'cancel', 'tenant', 'cost',
  'claim', 'version')
if job.state ~= 'running' and job.by == wid and job.try == try then return 'again' end
if job.state ~= 'running' or job.owner ~= wid or job.try ~= try then return 'fenced' end
local now = now_ms()
redis.call('ZREM', P .. 'own:' .. wid, id)
redis.call('HSET', P .. 'job:' .. id, 'by', wid)
job.is_ours = ARGV[10] == '1'
if state == 'cancelled' and job.cancel then
  end_job(job, state, now, ARGV[5], job.cancel) -- whoever cancelled it said why
else
  end_job(job, state, now, ARGV[5], ARGV[6], ARGV[8], ARGV[9])
end
if ARGV[7] ~= '' then charge(job.tenant, ARGV[7] - job.cost) end
local entry = version_key(job.version)
if redis.call('EXISTS', entry) == 1 then
  redis.call('HINCRBY', entry, 'requests', 1)
  redis.call('HINCRBY', entry, 'tokens', ARGV[7] ~= '' and ARGV[7] or 0)
  redis.call('HSET', entry, 'used_ms', now)
end
if state == 'done' then
  redis.call('HDEL', entry, 'dead_jobs')
  local mean = tonumber(redis.call('HGET', P .. 'cnt', 'run_ms') or now - job.claim)
  redis.call('HSET', P .. 'cnt', 'run_ms', mean + (now - job.claim - mean) * RUN_MS_SHARE)
end
return 'ok'
