-- Put before every script by shared/scripts.py, together with PROTOCOL_VERSION.
-- KEYS[1] is the pool's prefix `{lk:<pool>}:`; all other keys are built from it and share its
-- cluster slot. shared/keys.py says what each key holds.

local P = KEYS[1]

local REPLY_TRIM_MS = 30000
local REPLY_TTL_MS = 60000
local CHECKPOINT_TTL_MS = 3600000
local CHECKPOINT_AFTER_END_MS = 600000
local MAILBOX_TTL_MS = 60000
local WORKER_TTL_MS = 60000
local TENANT_TTL_MS = 86400000
local LOAD_LOCK_MS = 15000
local MAX_DEAD_LETTERS = 10000
local DEATHS_UNTIL_SUSPECT = 2
local DEATHS_ALONE_UNTIL_DEAD = 2
local DEAD_JOBS_UNTIL_QUARANTINE = 3

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The named fields of a job as a table; a missing field is false.
local function read_job(id, ...)
  local values, job = redis.call('HMGET', P .. 'job:' .. id, ...), { id = id }
  for i, name in ipairs({ ... }) do job[name] = values[i] end
  return job
end

-- The registry's hash of a version; there is none of the base.
local function version_key(version) return P .. 'version:' .. version end

local function is_worker(wid)
  return redis.call('ZSCORE', P .. 'workers', wid) ~= false
end

-- Renew a worker's lease, with what it tells of itself.
local function note_worker(wid, lease_ms, info, now)
  local key = P .. 'w:' .. wid
  redis.call('ZADD', P .. 'workers', now + lease_ms, wid)
  redis.call('HSET', key, 'info', info, 'seqs', cjson.decode(info).max_num_seqs, 'beat', now,
    'lease', lease_ms)
  redis.call('PEXPIRE', key, WORKER_TTL_MS)
end

-- Bring `ready` and `cold` in line with the head of the version's queue and with its holders.
local function reindex(version)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0, 'WITHSCORES')
  if not head[2] then
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

-- Add one entry to the reply stream of an API process. `wid` is the worker that wrote it, if any.
local function reply(api, payload, wid, now)
  local key = P .. 'out:' .. api
  redis.call('XADD', key, 'MINID', '~', now - REPLY_TRIM_MS, '*', 'e', payload, 'w', wid or '')
  redis.call('PEXPIRE', key, REPLY_TTL_MS)
end

local function checkpoint(id, payload)
  redis.call('XADD', P .. 'tok:' .. id, '*', 'e', payload)
  redis.call('PEXPIRE', P .. 'tok:' .. id, CHECKPOINT_TTL_MS)
end

-- Wake one parked worker for a job of this version: a holder first, else the one with most room.
local function wake(version)
  if redis.call('EXISTS', P .. 'idle') == 0 then return end
  local parked = redis.call('ZINTER', 2, P .. 'idle', P .. 'on:' .. version, 'WEIGHTS', 1, 0)
  local wid = parked[#parked] or redis.call('ZREVRANGE', P .. 'idle', 0, 0)[1]
  redis.call('ZREM', P .. 'idle', wid)
  redis.call('RPUSH', P .. 'wake:' .. wid, 'job')
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end

-- The one way in which a job ends. Needs job.id, .try, .out and .retain; with .is_ours, a fault of
-- ours ended it, and its body stays to be enqueued anew. The last two arguments are what a worker
-- wrote, and are made here for a job that a script ends.
local function end_job(job, state, now, usage, error, event, result)
  local key = P .. 'job:' .. job.id
  redis.call('HSET', key, 'state', state, 'end', now, 'usage', usage, 'error', error)
  redis.call('HDEL', key, 'owner', 'reserved')
  if not job.is_ours then redis.call('HDEL', key, 'body') end
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

-- End a job that never ran: its tenant isn't charged. Needs job.tenant and .cost as well.
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
