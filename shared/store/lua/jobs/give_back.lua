-- Included after common.lua in the scripts that take jobs from a worker.
local DEATHS_ALONE_UNTIL_DEAD = 2
local DEAD_JOBS_UNTIL_QUARANTINE = 3
local MAX_DEAD_LETTERS = 10000
local CHARGED_TTL_MS = 3600000

-- Put a running job back into its queue, at its old place.
local function requeue(job, now, wid, reason)
  local key = P .. 'job:' .. job.id
  redis.call('HSET', key, 'state', 'queued', 'requeued', now,
    'timeline', moment(job, 'requeued', now, wid, reason))
  redis.call('HDEL', key, 'owner')
  redis.call('SREM', P .. 'run:' .. job.version, job.id)
  redis.call('PERSIST', P .. 'tok:' .. job.id)
  redis.call('ZADD', P .. 'q:' .. job.version, job.score, job.id)
  reindex(job.version)
  count_waiting(job.tenant, 1)
  local retry = '{"type":"retry","job":"' .. job.id .. '","try":' .. job.try .. '}'
  reply_all(job, events_json({ retry }), now)
  wake(job.version, job.features)
end

-- Give no more jobs of a quarantined version to workers. `end_quarantined.lua` ends its waiting jobs.
local function doom(version)
  redis.call('SADD', P .. 'doomed', version)
  reindex(version)
end

-- End a job that killed its workers, and keep it as a dead letter.
local function bury(job, wid, now)
  local error = error_json('poison_job', 'the job killed its worker '
    .. DEATHS_ALONE_UNTIL_DEAD .. ' times while it ran alone and will not be tried again')
  local body = tonumber(job.bytes or 0) <= MAX_KEPT_BODY
    and redis.call('HGET', P .. 'job:' .. job.id, 'body') or ''
  local letter = redis.call('XADD', P .. 'dead', 'MAXLEN', '~', MAX_DEAD_LETTERS, '*', 'id', job.id,
    'version', job.version, 'tenant', job.tenant, 'try', job.try, 'worker', wid, 'error', error,
    'body', body)
  redis.call('HSET', P .. 'job:' .. job.id, 'letter', letter)
  job.letter = letter
  end_job(job, 'dead', now, 'null', error)
  record_incident('job_dead', 'worker', wid, 'version', job.version, 'job', job.id)
  local entry = version_key(job.version)
  local state = redis.call('HGET', entry, 'state')
  if not state then return end -- the base model has no entry
  if redis.call('HINCRBY', entry, 'dead_jobs', 1) >= DEAD_JOBS_UNTIL_QUARANTINE then
    if state == 'ready' then
      registry_changed()
      redis.call('HSET', entry, 'state', 'quarantined')
      redis.call('ZADD', P .. 'quarantined', now, job.version)
      record_incident('adapter_quarantined', 'version', job.version)
    end
    doom(job.version)
  end
end

-- Charge a worker's death to one of its jobs, and return whether the job may be tried again. A job
-- becomes a suspect, and then runs alone, after its worker has died once while the job ran alone or
-- twice while it ran in a batch. The first death in a batch says little about a job, and isolating
-- all jobs of the batch would make them wait for each other. Only the deaths of workers that ran a
-- suspect can end a job, so a poison job doesn't end the other jobs of its batch. The charges are
-- recorded so that `pardon` can cancel them if the worker was only silent.
local function charge_death(job, was_alone, wid)
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

-- Take a job from a worker: requeue it with its old score, or end it. `published` contains the
-- published tokens that aren't in a checkpoint, or is ''. `death` is nil if the worker is alive or
-- left. For a dead worker, `death.was_alone` is true if the job was its only one. `reason` is shown in
-- the job's timeline. Returns 'requeued' | 'ended', or nil if the worker doesn't own the job.
local function give_back(wid, id, published, death, now, reason)
  local job = read_job(id)
  redis.call('ZREM', P .. 'own:' .. wid, id)
  if job.state ~= 'running' or job.owner ~= wid then return nil end
  if published ~= '' then checkpoint(id, published) end
  unlock_load(wid, job.version)
  if death then moment(job, 'worker_lost', now, wid) end
  if job.cancel then
    end_job(job, 'cancelled', now, 'null', job.cancel)
    return 'ended'
  elseif death and not charge_death(job, death.was_alone, wid) then
    bury(job, wid, now)
    return 'ended'
  end
  requeue(job, now, wid, reason)
  redis.call('HINCRBY', P .. 'cnt', death and 'retried' or 'released', 1)
  return 'requeued'
end
