-- Put before every script by shared/store/scripts.py, together with PROTOCOL_VERSION.
-- KEYS[1] is the pool's prefix `{lk:<pool>}:`; all other keys are built from it and share its
-- cluster slot. shared/store/keys.py says what each key holds.

local P = KEYS[1]

local REPLY_TRIM_MS = 60000
local REPLY_TTL_MS = 120000
local CHECKPOINT_TTL_MS = 86400000
local CHECKPOINT_AFTER_END_MS = 600000
local MAILBOX_TTL_MS = 60000
local WORKER_TTL_MS = 60000
local TENANT_TTL_MS = 86400000
local LOAD_LOCK_MS = 15000
local DEATHS_UNTIL_SUSPECT = 2
local DEFAULT_STALL_MS = 3000
local MAX_KEPT_BODY = 65536 -- bytes of a request that is kept after its job's end
local MAX_SENT = 128 -- publications that may hold tokens without a checkpoint; see worker/jobs/publisher.py
local SAMPLE = 16 -- holders of a version that are looked at for a parked one

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Pool time is Redis' clock minus the gaps between sweeps, in which Redis stood still or was away, and
-- minus jumps of the clock. Deadlines and waits are counted in it. Returns the clock, and by how much
-- pool time lags behind it. The sweep keeps `swept`, `lag` and `stall_ms`.
local function read_clock()
  local now = now_ms()
  local swept, lag, stall_ms = unpack(redis.call('HMGET', P .. 'cnt', 'swept', 'lag', 'stall_ms'))
  local since = now - (swept or now)
  lag = tonumber(lag or 0)
  if since < 0 or since > tonumber(stall_ms or DEFAULT_STALL_MS) then lag = lag + since end
  return now, lag
end

local JOB_FIELDS = { 'state', 'version', 'tenant', 'score', 'tag', 'cost', 'sequences', 'out', 'enq',
  'deadline', 'lag', 'retain', 'try', 'owner', 'by', 'suspect', 'cancel', 'reserved', 'claim', 'bytes' }

-- A job as a table, without its body; a missing field is false.
local function read_job(id)
  local values, job = redis.call('HMGET', P .. 'job:' .. id, unpack(JOB_FIELDS)), { id = id }
  for i, name in ipairs(JOB_FIELDS) do job[name] = values[i] end
  return job
end

-- The pool time at which the job's deadline passes.
local function due_of(job) return job.deadline - (job.lag or 0) end

-- The registry's hash of a version; there is none of the base.
local function version_key(version) return P .. 'version:' .. version end

local function is_registered(wid) return redis.call('ZSCORE', P .. 'workers', wid) ~= false end

-- Take back the deaths that a worker's jobs were charged with when it fell silent: it speaks.
local function pardon(wid)
  local charged = redis.call('HGETALL', P .. 'charged:' .. wid)
  for i = 1, #charged, 2 do
    local key, field, number = P .. 'job:' .. charged[i], string.match(charged[i + 1], '(%a+) (%d+)')
    local state, version = unpack(redis.call('HMGET', key, 'state', 'version'))
    if state then
      local left = redis.call('HINCRBY', key, field, -number)
      if field == 'deaths' and left < DEATHS_UNTIL_SUSPECT then redis.call('HDEL', key, 'suspect') end
      local entry = version_key(version)
      if state == 'dead' and tonumber(redis.call('HGET', entry, 'dead_jobs') or 0) > 0 then
        redis.call('HINCRBY', entry, 'dead_jobs', -1)
      end
    end
  end
  redis.call('DEL', P .. 'charged:' .. wid)
end

-- Whether the worker that calls is in the pool. When it isn't, its first call takes up to 5 commands
-- more for each job that it lost.
local function is_worker(wid)
  if is_registered(wid) then return true end
  redis.call('ZADD', P .. 'lost', 'XX', -1, wid) -- what isn't settled yet is as if it had left
  pardon(wid)
  return false
end

-- Renew a worker's lease, with what it tells of itself.
local function note_worker(wid, lease_ms, info, now)
  local key, told = P .. 'w:' .. wid, cjson.decode(info)
  redis.call('ZADD', P .. 'workers', now + lease_ms, wid)
  redis.call('ZREM', P .. 'missing', wid)
  redis.call('HSET', key, 'info', info, 'seqs', told.max_num_seqs, 'beat', now, 'lease', lease_ms)
  redis.call('PEXPIRE', key, WORKER_TTL_MS)
  if (told.kv_tokens or 0) > 0 then redis.call('ZADD', P .. 'capacity', told.kv_tokens, wid) end
end

-- Take a worker out of the pool: it can't publish any more. `num_jobs` are those that it dies with, -1
-- if it leaves. `hand_on` and `forget_worker` do the rest.
local function take_out(wid, num_jobs)
  if redis.call('ZREM', P .. 'workers', wid) == 1 then redis.call('ZADD', P .. 'lost', num_jobs, wid) end
  for _, name in ipairs({ 'missing', 'capacity', 'idle' }) do redis.call('ZREM', P .. name, wid) end
end

-- Which of the jobs (id, epoch, ...) in ARGV are not the worker's any more, as two flat lists: those,
-- and those of its jobs that their clients have cancelled. An epoch of 0 matches any.
local function standing_of(wid, first, num_jobs)
  local fenced, ids = {}, {}
  for i = 1, num_jobs do ids[i] = ARGV[first + 2 * i - 2] end
  local epochs = num_jobs > 0 and redis.call('ZMSCORE', P .. 'own:' .. wid, unpack(ids)) or {}
  for i, id in ipairs(ids) do
    local epoch = tonumber(ARGV[first + 2 * i - 1])
    if not epochs[i] or (epoch ~= 0 and tonumber(epochs[i]) ~= epoch) then fenced[#fenced + 1] = id end
  end
  return fenced, redis.call('SMEMBERS', P .. 'cancelled:' .. wid)
end

-- Tell a worker that a job isn't wanted any more: at once by mail, and by what it calls next.
local function tell_cancelled(wid, id)
  redis.call('SADD', P .. 'cancelled:' .. wid, id)
  redis.call('PEXPIRE', P .. 'cancelled:' .. wid, MAILBOX_TTL_MS)
  redis.call('RPUSH', P .. 'wake:' .. wid, 'cancel ' .. id)
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end

-- Whether a job of the version runs. Workers of the last release leave ids of ended jobs behind.
local function is_running(version)
  local key = P .. 'run:' .. version
  for _, id in ipairs(redis.call('SRANDMEMBER', key, 2)) do
    if redis.call('HGET', P .. 'job:' .. id, 'state') ~= 'running' then redis.call('SREM', key, id) end
  end
  return redis.call('EXISTS', key) == 1
end

local function is_doomed(version) return redis.call('SISMEMBER', P .. 'doomed', version) == 1 end

-- Bring `ready` and `cold` in line with the head of the version's queue and with its holders.
local function reindex(version)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0, 'WITHSCORES')
  if not head[2] or is_doomed(version) then
    redis.call('ZREM', P .. 'ready', version)
    redis.call('ZREM', P .. 'cold', version)
    return
  end
  redis.call('ZADD', P .. 'ready', head[2], version)
  if redis.call('EXISTS', P .. 'on:' .. version) == 1 then
    redis.call('ZREM', P .. 'cold', version)
  else
    redis.call('ZADD', P .. 'cold', head[2], version)
  end
end

-- A tenant's hash may only expire while it has nothing waiting, or its count would be lost.
local function count_waiting(tenant, change)
  redis.call('HINCRBY', P .. 'cnt', 'waiting', change)
  if not tenant then return end
  local key = P .. 't:' .. tenant
  local waiting = redis.call('HINCRBY', key, 'waiting', change)
  if waiting == 0 then
    redis.call('PEXPIRE', key, TENANT_TTL_MS)
  elseif waiting == change then
    redis.call('PERSIST', key)
  end
end

-- Count the bytes of a request that is kept for a job until its end.
local function count_bytes(tenant, change)
  redis.call('HINCRBY', P .. 'cnt', 'bytes', change)
  if redis.call('EXISTS', P .. 't:' .. tenant) == 1 then
    redis.call('HINCRBY', P .. 't:' .. tenant, 'bytes', change)
  end
end

-- Correct what fairness charged the tenant.
local function charge(tenant, tokens)
  local key = P .. 't:' .. tenant
  if redis.call('EXISTS', key) == 1 then redis.call('HINCRBYFLOAT', key, 'tag', tokens) end
end

local function events_json(events)
  return '{"v":' .. PROTOCOL_VERSION .. ',"events":[' .. table.concat(events, ',') .. ']}'
end

local function error_json(code, message)
  return '{"code":"' .. code .. '","message":' .. cjson.encode(message) .. ',"param":null}'
end

-- Add one entry to the reply stream of an API process; returns its id. `wid` is the worker that wrote
-- it, if any.
local function reply(api, payload, wid, now)
  local key = P .. 'out:' .. api
  local id = redis.call('XADD', key, 'MINID', '~', now - REPLY_TRIM_MS, '*', 'e', payload,
    'w', wid or '')
  redis.call('PEXPIRE', key, REPLY_TTL_MS)
  return id
end

local function checkpoint(id, payload)
  redis.call('XADD', P .. 'tok:' .. id, '*', 'e', payload)
  redis.call('PEXPIRE', P .. 'tok:' .. id, CHECKPOINT_TTL_MS)
end

-- A parked worker for a job of this version: a holder first, else the one with most room.
local function parked_for(version)
  local holders = redis.call('SRANDMEMBER', P .. 'on:' .. version, SAMPLE)
  local best, most = nil, -1
  local free = #holders > 0 and redis.call('ZMSCORE', P .. 'idle', unpack(holders)) or {}
  for i, wid in ipairs(holders) do
    if free[i] and tonumber(free[i]) > most then best, most = wid, tonumber(free[i]) end
  end
  return best or redis.call('ZREVRANGE', P .. 'idle', 0, 0)[1]
end

-- Wake one parked worker for a job of this version.
local function wake(version)
  if redis.call('EXISTS', P .. 'idle') == 0 then return end
  local wid = parked_for(version)
  redis.call('ZREM', P .. 'idle', wid)
  redis.call('RPUSH', P .. 'wake:' .. wid, 'job')
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end

-- The one way in which a job ends. With .is_ours, a fault of ours ended it, and its body stays to be
-- enqueued anew unless it is large. The last two arguments are what a worker wrote, and are made here
-- for a job that a script ends.
local function end_job(job, state, now, usage, error, event, result)
  local key, num_bytes = P .. 'job:' .. job.id, tonumber(job.bytes or 0)
  redis.call('HSET', key, 'state', state, 'end', now, 'usage', usage, 'error', error)
  redis.call('HDEL', key, 'owner', 'reserved', 'bytes')
  if not job.is_ours or num_bytes > MAX_KEPT_BODY then redis.call('HDEL', key, 'body') end
  if num_bytes > 0 then count_bytes(job.tenant, -num_bytes) end
  redis.call('ZREM', P .. 'due', job.id)
  if job.state == 'running' then redis.call('SREM', P .. 'run:' .. job.version, job.id) end
  if job.cancel and job.owner then redis.call('SREM', P .. 'cancelled:' .. job.owner, job.id) end
  redis.call('PEXPIRE', key, job.retain)
  redis.call('PEXPIRE', P .. 'tok:' .. job.id, CHECKPOINT_AFTER_END_MS)
  redis.call('HINCRBY', P .. 'cnt', state, 1)
  local ending = ',"state":"' .. state .. '","usage":' .. usage .. ',"error":' .. error .. '}'
  local of_job = '"job":"' .. job.id .. '"'
  event = event or events_json({ '{"type":"end",' .. of_job .. ',"try":' .. job.try .. ending })
  result = result or '{"v":' .. PROTOCOL_VERSION .. ',' .. of_job .. ',"choices":[]' .. ending
  redis.call('SET', P .. 'res:' .. job.id, result, 'PX', job.retain)
  reply(job.out, event, false, now)
end

-- End a job that never ran: its tenant isn't charged.
local function end_unrun(job, state, now, error)
  count_waiting(job.tenant, -1)
  charge(job.tenant, -job.cost)
  end_job(job, state, now, 'null', error)
end

-- End a job whose deadline passed while it waited; its queue has been left already.
local function expire(job, now)
  end_unrun(job, 'expired', now,
    error_json('deadline_exceeded', 'the deadline passed while the job was waiting'))
end

local function unlock_load(wid, version)
  if redis.call('GET', P .. 'load:' .. version) == wid then
    redis.call('DEL', P .. 'load:' .. version)
  end
end

local function hold(wid, version)
  redis.call('SADD', P .. 'has:' .. wid, version)
  redis.call('SADD', P .. 'on:' .. version, wid)
  redis.call('ZREM', P .. 'cold', version)
  unlock_load(wid, version)
end

local function unhold(wid, version)
  redis.call('SREM', P .. 'has:' .. wid, version)
  redis.call('SREM', P .. 'on:' .. version, wid)
  unlock_load(wid, version)
  local score = redis.call('ZSCORE', P .. 'ready', version)
  if score and redis.call('EXISTS', P .. 'on:' .. version) == 0 then
    redis.call('ZADD', P .. 'cold', score, version)
  end
end
