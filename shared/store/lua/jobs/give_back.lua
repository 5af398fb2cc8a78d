-- Put behind common.lua in the scripts that take jobs from a worker.
local DEATHS_ALONE_UNTIL_DEAD = 2
local DEAD_JOBS_UNTIL_QUARANTINE = 3
local MAX_DEAD_LETTERS = 10000
local CHARGED_TTL_MS = 3600000

-- Let a running job wait again, at its old place.
local function requeue(job, now)
  local key = P .. 'job:' .. job.id
  redis.call('HSET', key, 'state', 'queued')
  redis.call('HDEL', key, 'owner')
  redis.call('SREM', P .. 'run:' .. job.version, job.id)
  redis.call('PERSIST', P .. 'tok:' .. job.id)
  redis.call('ZADD', P .. 'q:' .. job.version, job.score, job.id)
  reindex(job.version)
  count_waiting(job.tenant, 1)
  local retry = '{"type":"retry","job":"' .. job.id .. '","try":' .. job.try .. '}'
  reply(job.out, events_json({ retry }), false, now)
  wake(job.version)
end

-- Serve a version no more, as it kills its workers; `quarantine` ends what waits for it.
local function doom(version)
  redis.call('SADD', P .. 'doomed', version)
  reindex(version)
end

local function bury(job, wid, now)
  local error = error_json('poison_job', 'the job killed its worker '
    .. DEATHS_ALONE_UNTIL_DEAD .. ' times while it ran alone and will not be tried again')
  local body = tonumber(job.bytes or 0) <= MAX_KEPT_BODY
    and redis.call('HGET', P .. 'job:' .. job.id, 'body') or ''
  redis.call('XADD', P .. 'dead', 'MAXLEN', '~', MAX_DEAD_LETTERS, '*', 'id', job.id,
    'version', job.version, 'tenant', job.tenant, 'try', job.try, 'worker', wid, 'error', error,
    'body', body)
  end_job(job, 'dead', now, 'null', error)
  local entry = version_key(job.version)
  local state = redis.call('HGET', entry, 'state')
  if not state then return end -- the base's
  if redis.call('HINCRBY', entry, 'dead_jobs', 1) >= DEAD_JOBS_UNTIL_QUARANTINE then
    if state == 'ready' then redis.call('HSET', entry, 'state', 'quarantined') end
    doom(job.version)
  end
end

-- Charge a job with the death of its worker; true when it may be tried again. It becomes a suspect,
-- which runs alone, by a death alone or by its second in company; the first in company says little
-- of it, and would make the jobs of a worker that was merely killed wait for each other. Only the
-- death of a suspect counts, so that a poison job takes no batch-mates with it. What a job is charged
-- with is noted: the worker may only have been silent.
local function survives(job, was_alone, wid)
  local key, charged = P .. 'job:' .. job.id, P .. 'charged:' .. wid
  local field, number = 'deaths', was_alone and DEATHS_UNTIL_SUSPECT or 1
  if job.suspect then field, number = 'fails', 1 end
  local sum = redis.call('HINCRBY', key, field, number)
  redis.call('HSET', charged, job.id, field .. ' ' .. number)
  redis.call('PEXPIRE', charged, CHARGED_TTL_MS)
  if job.suspect then return sum < DEATHS_ALONE_UNTIL_DEAD end
  if sum >= DEATHS_UNTIL_SUSPECT then redis.call('HSET', key, 'suspect', 1) end
  return true
end

-- Take a job from the worker: back to its queue at its old score, or to its end. `shown` is what it
-- has shown beyond the checkpoints, or ''. `death` is nil, or tells whether the worker died running
-- this job alone. Returns 'requeued' | 'ended', or nil when the job wasn't the worker's.
local function give_back(wid, id, shown, death, now)
  local job = read_job(id)
  redis.call('ZREM', P .. 'own:' .. wid, id)
  if job.state ~= 'running' or job.owner ~= wid then return nil end
  if shown ~= '' then checkpoint(id, shown) end
  unlock_load(wid, job.version)
  if job.cancel then
    end_job(job, 'cancelled', now, 'null', job.cancel)
    return 'ended'
  elseif death and not survives(job, death.was_alone, wid) then
    bury(job, wid, now)
    return 'ended'
  end
  requeue(job, now)
  redis.call('HINCRBY', P .. 'cnt', death and 'retried' or 'released', 1)
  return 'requeued'
end
