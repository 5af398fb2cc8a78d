#!lua flags=allow-oom
-- At most 60 commands.
-- ARGV: wid id try claim_epoch state usage error num_tokens event result may_retry.
-- Ends a job of a worker. Returns a `FinishOutcome`: 'ok' | 'again' | 'fenced'. `end_job` in
-- common.lua deletes the fields that a job needs only until its end.
local wid, id, try, epoch, state = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local usage, error, num_tokens = ARGV[6], ARGV[7], ARGV[8]
local RUN_MS_SHARE = 1 / 16
local MAX_RUN_MS = 600000 -- longer durations come from a jump of the clock
local job = read_job(id)
if job.state ~= 'running' and job.by == wid and job.try == try then return 'again' end
if job.state ~= 'running' or job.owner ~= wid or job.try ~= try then return 'fenced' end
local booked = redis.call('ZSCORE', P .. 'own:' .. wid, id)
if not booked or (epoch ~= 0 and tonumber(booked) ~= epoch) then return 'fenced' end
local now = now_ms()
redis.call('ZREM', P .. 'own:' .. wid, id)
redis.call('HSET', P .. 'job:' .. id, 'by', wid)
-- Without jobs, no handover needs the worker's publications. They must not outlive an erased answer.
if redis.call('EXISTS', P .. 'own:' .. wid) == 0 then redis.call('DEL', P .. 'sent:' .. wid) end
job.may_retry = ARGV[11] == '1'
if state == 'cancelled' and job.cancel then
  end_job(job, state, now, usage, job.cancel) -- the reason that the client gave
else
  end_job(job, state, now, usage, error, ARGV[9], ARGV[10])
end
if num_tokens ~= '' then charge(job, num_tokens - job.cost) end
local entry = version_key(job.version)
if redis.call('HGET', P .. 'base', 'version') == job.version then entry = P .. 'base' end
local run_ms = math.max(0, math.min(now - job.claim, MAX_RUN_MS))
if redis.call('EXISTS', entry) == 1 then
  redis.call('HINCRBY', entry, 'requests', 1)
  if state == 'failed' then redis.call('HINCRBY', entry, 'failed', 1) end
  if state == 'done' then
    redis.call('HINCRBY', entry, 'answered', 1)
    redis.call('HINCRBY', entry, 'answer_ms', run_ms)
  end
  redis.call('HINCRBY', entry, 'tokens', num_tokens ~= '' and num_tokens or 0)
  redis.call('HSET', entry, 'used_ms', now)
end
if state == 'done' then
  redis.call('HDEL', entry, 'dead_jobs')
  local mean, rate, rated = unpack(redis.call('HMGET', P .. 'cnt', 'run_ms', 'rate', 'rated'))
  mean = tonumber(mean or run_ms)
  rate = (rate or 0) * math.exp(-math.max(0, now - (rated or now)) / RATE_MS) + 1000 / RATE_MS
  redis.call('HSET', P .. 'cnt', 'run_ms', mean + (run_ms - mean) * RUN_MS_SHARE, 'rate', rate,
    'rated', now)
end
return 'ok'
