-- Put behind common.lua in the scripts that take jobs from a worker.

local function tokens_json(event)
  local finish, logprobs = event.finish, ''
  for _, name in ipairs({ 'logprobs', 'prompt_logprobs' }) do
    if event[name] then logprobs = logprobs .. ',"' .. name .. '":' .. cjson.encode(event[name]) end
  end
  return '{"type":"tokens","job":"' .. event.job .. '","try":' .. event.try
    .. ',"choice":' .. event.choice .. ',"index":' .. event.index
    .. ',"ids":[' .. table.concat(event.ids, ',') .. '],"text":' .. cjson.encode(event.text)
    .. ',"finish":' .. (finish == cjson.null and 'null' or '"' .. finish .. '"') .. logprobs .. '}'
end

-- From when on tokens of the job may be missing in its checkpoints: each choice has its own.
local function unsaved_since_ms(job)
  local num_choices, since, seen = tonumber(job.sequences), math.huge, {}
  local last = redis.call('XREVRANGE', P .. 'tok:' .. job.id, '+', '-', 'COUNT', 8 * num_choices)
  for _, entry in ipairs(last) do
    for _, event in ipairs(cjson.decode(entry[2][2]).events) do
      if not seen[event.choice] then
        seen[event.choice] = true
        num_choices = num_choices - 1
        if event.finish == cjson.null then
          since = math.min(since, tonumber(string.match(entry[1], '^%d+')))
        end
      end
    end
  end
  return num_choices > 0 and tonumber(job.claim) or since
end

-- Copy what the worker showed of these jobs since their last checkpoints from the reply streams,
-- which are trimmed, to the checkpoints. From here on those hold all that was ever shown: the
-- worker can't publish any more. Readers drop what they have seen already.
local function keep_shown(wid, jobs)
  local since, shown = {}, {}
  for _, job in ipairs(jobs) do
    local ms = unsaved_since_ms(job)
    if ms < math.huge then since[job.out] = math.min(since[job.out] or ms, ms) end
    shown[job.id] = {}
  end
  for api, ms in pairs(since) do
    for _, entry in ipairs(redis.call('XRANGE', P .. 'out:' .. api, ms, '+')) do
      local fields = entry[2]
      if fields[4] == wid then
        for _, event in ipairs(cjson.decode(fields[2]).events) do
          local list = shown[event.job]
          if list and event.type == 'tokens' then list[#list + 1] = tokens_json(event) end
        end
      end
    end
  end
  for id, list in pairs(shown) do
    if #list > 0 then checkpoint(id, events_json(list)) end
  end
end

local function requeue(job, now)
  local key = P .. 'job:' .. job.id
  redis.call('HSET', key, 'state', 'queued')
  redis.call('HDEL', key, 'owner')
  redis.call('PERSIST', P .. 'tok:' .. job.id)
  redis.call('ZADD', P .. 'q:' .. job.version, job.score, job.id)
  reindex(job.version)
  count_waiting(job.tenant, 1)
  local retry = '{"type":"retry","job":"' .. job.id .. '","try":' .. job.try .. '}'
  reply(job.out, events_json({ retry }), false, now)
  wake(job.version)
end

-- End everything that waits for a version which kills its workers.
local function end_all_waiting(version, now)
  local error = error_json('adapter_unavailable', 'adapter ' .. version
    .. ' is quarantined: ' .. DEAD_JOBS_UNTIL_QUARANTINE .. ' of its jobs in a row killed their workers')
  for _, id in ipairs(redis.call('ZRANGE', P .. 'q:' .. version, 0, -1)) do
    local job = read_job(id, 'try', 'out', 'retain', 'tenant', 'cost')
    job.is_ours = true
    end_unrun(job, 'failed', now, error)
  end
  redis.call('DEL', P .. 'q:' .. version)
  reindex(version)
end

local function bury(job, wid, now)
  local error = error_json('poison_job', 'the job killed its worker '
    .. DEATHS_ALONE_UNTIL_DEAD .. ' times while it ran alone and will not be tried again')
  redis.call('XADD', P .. 'dead', 'MAXLEN', '~', MAX_DEAD_LETTERS, '*', 'id', job.id,
    'version', job.version, 'tenant', job.tenant, 'try', job.try, 'worker', wid, 'error', error,
    'body', job.body)
  end_job(job, 'dead', now, 'null', error)
  local entry = version_key(job.version)
  local state = redis.call('HGET', entry, 'state')
  if not state then return end -- the base's
  if redis.call('HINCRBY', entry, 'dead_jobs', 1) >= DEAD_JOBS_UNTIL_QUARANTINE then
    if state == 'ready' then redis.call('HSET', entry, 'state', 'quarantined') end
    end_all_waiting(job.version, now)
  end
end

-- After its worker died: true when the job may be tried again. It becomes a suspect, which runs
-- alone, by a death alone or by its second in company; the first in company says little of it, and
-- would make the jobs of a worker that was merely killed wait for each other. Only the death of a
-- suspect counts, so that a poison job takes no batch-mates with it.
local function survives(job, was_alone)
  local key = P .. 'job:' .. job.id
  if job.suspect then
    return redis.call('HINCRBY', key, 'fails', 1) < DEATHS_ALONE_UNTIL_DEAD
  end
  local deaths = redis.call('HINCRBY', key, 'deaths', 1)
  if was_alone or deaths >= DEATHS_UNTIL_SUSPECT then redis.call('HSET', key, 'suspect', 1) end
  return true
end

-- Take these jobs from the worker: back to their queues at their old scores, or to their end.
-- Returns how many went each way.
local function give_back(wid, ids, has_died, now)
  local jobs, requeued, ended = {}, 0, 0
  for _, id in ipairs(ids) do
    local job = read_job(id, 'state', 'owner', 'try', 'version', 'score', 'cancel', 'tenant', 'out',
      'suspect', 'retain', 'claim', 'body', 'sequences')
    redis.call('ZREM', P .. 'own:' .. wid, id)
    if job.state == 'running' and job.owner == wid then jobs[#jobs + 1] = job end
  end
  keep_shown(wid, jobs)
  for _, job in ipairs(jobs) do
    unlock_load(wid, job.version)
    if job.cancel then
      end_job(job, 'cancelled', now, 'null', job.cancel)
      ended = ended + 1
    elseif has_died and not survives(job, #jobs == 1) then
      bury(job, wid, now)
      ended = ended + 1
    else
      requeue(job, now)
      requeued = requeued + 1
    end
  end
  if requeued > 0 then
    redis.call('HINCRBY', P .. 'cnt', has_died and 'retried' or 'released', requeued)
  end
  return { requeued, ended }
end

local function give_back_all(wid, has_died, now)
  for _, version in ipairs(redis.call('SMEMBERS', P .. 'has:' .. wid)) do unhold(wid, version) end
  redis.call('ZREM', P .. 'workers', wid)
  redis.call('ZREM', P .. 'idle', wid)
  redis.call('DEL', P .. 'w:' .. wid, P .. 'wake:' .. wid, P .. 'has:' .. wid)
  return give_back(wid, redis.call('ZRANGE', P .. 'own:' .. wid, 0, -1), has_died, now)
end
