-- Included in every script by shared/store/redis/scripts.py, after its constants, capabilities.lua,
-- accounting.lua, timeline.lua and unanswered.lua.

local REPLY_TRIM_MS = 60000
local REPLY_TTL_MS = 120000
-- An API process that was silent for this long is assumed to be dead. It can't have read the events of
-- its jobs that are older than REPLY_TRIM_MS, so its clients noticed the silence, too.
local API_DEAD_MS = 60000
local CHECKPOINT_TTL_MS = 86400000
local MAILBOX_TTL_MS = 60000
local WORKER_TTL_MS = 60000
local TENANT_TTL_MS = 86400000
local LOAD_LOCK_MS = 15000
local DEATHS_UNTIL_SUSPECT = 2
local DEFAULT_STALL_MS = 3000
local RATE_MS = 30000 -- period over which the rate of answered jobs is averaged
local MAX_KEPT_BODY = 65536 -- bytes; larger requests are always deleted when their job ends
local MAX_INCIDENTS = 200
local SAMPLE = 16 -- number of a version's holders that are searched for a parked worker

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Return Redis' clock in ms, and by how much pool time lags behind it. Pool time is the clock
-- without its jumps, and without long gaps between sweeps, which mean that Redis stalled or was
-- unavailable. Deadlines and waiting times use pool time. `reap` maintains `swept`, `lag` and
-- `stall_ms`.
local function read_clock()
  local now = now_ms()
  local swept, lag, stall_ms = unpack(redis.call('HMGET', P .. 'cnt', 'swept', 'lag', 'stall_ms'))
  local since = now - (swept or now)
  lag = tonumber(lag or 0)
  if since < 0 or since > tonumber(stall_ms or DEFAULT_STALL_MS) then lag = lag + since end
  return now, lag
end

local JOB_FIELDS = { 'state', 'version', 'tenant', 'score', 'tag', 'cost', 'sequences', 'out', 'enq',
  'deadline', 'lag', 'retain', 'try', 'owner', 'by', 'suspect', 'cancel', 'reserved', 'claim', 'bytes',
  'weight', 'idem', 'keep', 'gone', 'kept', 'requeued', 'features', 'preemptible', 'model', 'key', 'books',
  'metered', 'held', 'limit', 'timeline' }

-- Return a job as a table of JOB_FIELDS and `id`. Missing fields are false.
local function read_job(id)
  local values, job = redis.call('HMGET', P .. 'job:' .. id, unpack(JOB_FIELDS)), { id = id }
  for i, name in ipairs(JOB_FIELDS) do job[name] = values[i] end
  return job
end

-- Return the API processes in `apis` that are alive at the given pool time.
local function living(apis, pool_now)
  local alive = {}
  local seen = #apis > 0 and redis.call('ZMSCORE', P .. 'apis', unpack(apis)) or {}
  for i, ms in ipairs(seen) do
    if ms and pool_now - ms < API_DEAD_MS then alive[#alive + 1] = apis[i] end
  end
  return alive
end

-- Return the job's deadline in pool time.
local function due_of(job) return job.deadline - (job.lag or 0) end

-- Return the key of a version's entry in the registry. The base model has no entry.
local function version_key(version) return P .. 'version:' .. version end

-- Give the registry another revision. Every script that changes or removes a model that takes
-- requests calls this function, because front ends remember such models.
local function registry_changed()
  local time = redis.call('TIME')
  redis.call('HSET', P .. 'cnt', 'registry', time[1] .. '.' .. time[2])
end

-- Record an incident for operators. The further arguments are pairs {name value}: the `worker`,
-- `version`, `job`, number of `jobs` or `process` that the incident concerns, its `reason`, and the time
-- `at` in ms if it happened earlier.
local function record_incident(kind, ...)
  redis.call('XADD', P .. 'incidents', 'MAXLEN', '~', MAX_INCIDENTS, '*', 'kind', kind, ...)
end

-- Record that a process is alive at the given pool time. `kind` is 'front_end' | 'control'.
local function report_process(kind, id, pool_now)
  if redis.call('ZADD', P .. 'processes', pool_now, kind .. ' ' .. id) == 1 then
    record_incident(kind .. '_joined', 'process', id)
  end
end

-- Return the short name of a worker, as `worker_name` in shared/protocol/ids.py.
local function short_name(wid) return string.match(wid, ':(%x%x%x%x)' .. string.rep('%x', 28) .. '$') or wid end

local function is_registered(wid) return redis.call('ZSCORE', P .. 'workers', wid) ~= false end

-- Take back the deaths that were charged to the jobs of a worker that was only silent.
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

-- Return whether the calling worker is in the pool. If it was declared dead, its first call needs
-- up to 5 more commands for each job that it lost.
local function is_worker(wid)
  if is_registered(wid) then return true end
  -- Jobs that aren't handed over yet are treated as if the worker had left.
  redis.call('ZADD', P .. 'lost', 'XX', -1, wid)
  pardon(wid)
  return false
end

-- Add what a worker has served since its last heartbeat to the pool's totals. The field `served` of the
-- worker's hash has the totals of that heartbeat. The first heartbeat under an id adds nothing, because
-- the process may have reported its totals under an earlier id.
local function count_served(key, decoded)
  local served = { decoded.tokens_total, unpack(decoded.first_tokens) }
  local before, i = redis.call('HGET', key, 'served') or '', 0
  redis.call('HSET', key, 'served', table.concat(served, ' '))
  for earlier in string.gmatch(before, '%S+') do
    i = i + 1
    local more = (served[i] or 0) - earlier
    if more > 0 then redis.call('HINCRBY', P .. 'served', i == 1 and 'tokens' or 'first_' .. i - 2, more) end
  end
end

-- Record once that a worker's engine seems to hang (`WorkerInfo.is_stalled`).
local function watch_stall(wid, key, decoded)
  if 2 * decoded.step_ms <= decoded.stall_ms then
    redis.call('HDEL', key, 'stalled')
  elseif redis.call('HSETNX', key, 'stalled', 1) == 1 then
    record_incident('worker_stalled', 'worker', wid)
  end
end

-- Renew a worker's lease, and store the worker's description. A worker never changes its class.
local function renew_lease(wid, lease_ms, info, now)
  local key, decoded = P .. 'w:' .. wid, cjson.decode(info)
  redis.call('ZADD', P .. 'workers', now + lease_ms, wid)
  redis.call('ZREM', P .. 'missing', wid)
  redis.call('HSET', key, 'info', info, 'seqs', decoded.max_num_seqs, 'beat', now, 'lease', lease_ms)
  redis.call('PEXPIRE', key, WORKER_TTL_MS)
  count_served(key, decoded)
  watch_stall(wid, key, decoded)
  local class = decoded.serves
  if class ~= '' then
    redis.call('HSET', key, 'class', class)
    redis.call('SADD', P .. 'classes', class)
  end
  redis.call('ZADD', set_of_class('capacity', class), decoded.kv_tokens, wid)
end

-- Remove a worker from the pool, so that it can no longer publish. `num_jobs` is the number of jobs
-- of a dead worker, or -1 if the worker leaves. `hand_over` and `forget_worker` complete the removal.
local function take_out(wid, num_jobs)
  if redis.call('ZREM', P .. 'workers', wid) == 1 then
    redis.call('ZADD', P .. 'lost', num_jobs, wid)
    record_incident(num_jobs < 0 and 'worker_left' or 'worker_lost', 'worker', wid,
      'jobs', redis.call('ZCARD', P .. 'own:' .. wid))
  end
  for _, name in ipairs({ 'missing', 'capacity', 'idle' }) do redis.call('ZREM', P .. name, wid) end
  for _, class in ipairs(classes()) do
    redis.call('ZREM', set_of_class('idle', class), wid)
    if redis.call('ZREM', set_of_class('capacity', class), wid) == 1
      and redis.call('EXISTS', set_of_class('capacity', class)) == 0 then
      redis.call('SREM', P .. 'classes', class)
    end
  end
end

-- Return two lists: the jobs in ARGV that the worker no longer owns, and all of the worker's jobs
-- that clients have cancelled. ARGV has `num_jobs` pairs {id claim_epoch} from the index `first`.
-- An epoch of 0 matches any claim.
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

-- Notify a worker that a job was cancelled, by mail and in the replies to its next calls.
local function notify_cancelled(wid, id)
  redis.call('SADD', P .. 'cancelled:' .. wid, id)
  redis.call('PEXPIRE', P .. 'cancelled:' .. wid, MAILBOX_TTL_MS)
  redis.call('RPUSH', P .. 'wake:' .. wid, 'cancel ' .. id)
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end

local function is_running(version) return redis.call('EXISTS', P .. 'run:' .. version) == 1 end

local function is_doomed(version) return redis.call('SISMEMBER', P .. 'doomed', version) == 1 end

-- Return whether the adapter of a version is paused, so that its jobs wait.
local function is_held_back(version)
  local name = string.match(version, '^(.*)@')
  return name and redis.call('HEXISTS', P .. 'pausedadapters', name) == 1
end

-- Update `ready`, `cold` and `held` after the version's queue or holders have changed, or its adapter
-- was paused or resumed.
local function reindex(version)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0, 'WITHSCORES')
  local is_closed = not head[2] or is_doomed(version)
  local is_held = not is_closed and is_held_back(version)
  if is_held then redis.call('ZADD', P .. 'held', head[2], version) else redis.call('ZREM', P .. 'held', version) end
  if is_closed or is_held then
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

-- Change the number of waiting jobs. A tenant's hash may expire only while none of the tenant's
-- jobs waits, since the count would be lost.
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

-- Change the number of bytes of unfinished requests.
local function count_bytes(tenant, change)
  redis.call('HINCRBY', P .. 'cnt', 'bytes', change)
  if redis.call('EXISTS', P .. 't:' .. tenant) == 1 then
    redis.call('HINCRBY', P .. 't:' .. tenant, 'bytes', change)
  end
end

-- Return the names of two fields of fair queueing: a tenant's tag, and the pool's virtual time.
-- Preemptible jobs have fields of their own, so that they don't delay a tenant's other jobs.
local function fair_queueing_fields(is_preemptible)
  if is_preemptible then return 'preemptible_tag', 'preemptible_vtime' end
  return 'tag', 'vtime'
end

-- Charge more tokens to the job's tenant in fair queueing, or fewer if `tokens` is negative.
local function charge(job, tokens)
  local key = P .. 't:' .. job.tenant
  if redis.call('EXISTS', key) == 1 then
    local tag_field = fair_queueing_fields(job.preemptible)
    redis.call('HINCRBYFLOAT', key, tag_field, tokens / (job.weight or 1))
  end
end

local function events_json(events)
  return '{"v":' .. PROTOCOL_VERSION .. ',"events":[' .. table.concat(events, ',') .. ']}'
end

local function error_json(code, message)
  return '{"code":"' .. code .. '","message":' .. cjson.encode(message) .. ',"param":null}'
end

-- Add an entry to the reply stream of an API process. `wid` is the worker that publishes the entry,
-- or false.
local function reply(api, payload, wid, now)
  local key = P .. 'out:' .. api
  redis.call('XADD', key, 'MINID', '~', now - REPLY_TRIM_MS, '*', 'e', payload, 'w', wid or '')
  redis.call('PEXPIRE', key, REPLY_TTL_MS)
end

-- Add an entry to the reply streams of all API processes that follow the job.
local function reply_all(job, payload, now)
  reply(job.out, payload, false, now)
  local followers = redis.call('HGET', P .. 'followers', job.id)
  for api in string.gmatch(followers or '', '%S+') do reply(api, payload, false, now) end
end

local function idempotency_key(tenant, digest) return P .. 'idem:' .. tenant .. ':' .. digest end

local function checkpoint(id, payload)
  redis.call('XADD', P .. 'tok:' .. id, '*', 'e', payload)
  redis.call('PEXPIRE', P .. 'tok:' .. id, CHECKPOINT_TTL_MS)
end

-- Return the holder of a version with the largest free capacity that is in one of the sets of
-- parked workers, and this set. Return nil if there is none. Only a sample of the holders is searched.
local function parked_holder(version, sets)
  local holders = redis.call('SRANDMEMBER', P .. 'on:' .. version, SAMPLE)
  local best, best_set, best_free = nil, nil, -1
  for _, set in ipairs(#holders > 0 and sets or {}) do
    for i, free in ipairs(redis.call('ZMSCORE', set, unpack(holders))) do
      if free and tonumber(free) > best_free then
        best, best_set, best_free = holders[i], set, tonumber(free)
      end
    end
  end
  return best, best_set
end

-- Return the parked worker in the sets with the largest free capacity, and its set.
local function freest(sets)
  local best, best_set, best_free = nil, nil, -1
  for _, set in ipairs(sets) do
    local wid, free = unpack(redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES'))
    if tonumber(free) > best_free then best, best_set, best_free = wid, set, tonumber(free) end
  end
  return best, best_set
end

-- Wake one parked worker that serves jobs of this version with these features: a holder of the
-- version if one is parked, else the worker with the largest free capacity.
local function wake(version, features)
  local sets = {}
  for _, class in ipairs(classes_serving(version, features)) do
    local set = set_of_class('idle', class)
    if redis.call('EXISTS', set) == 1 then sets[#sets + 1] = set end
  end
  if #sets == 0 then return end
  local wid, set = parked_holder(version, sets)
  if not wid then wid, set = freest(sets) end
  redis.call('ZREM', set, wid)
  redis.call('RPUSH', P .. 'wake:' .. wid, 'job')
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end

-- Memory of an ended job in addition to its record and its answer's text: the key of the answer, the
-- members of `ended` and `jobs`, and a part of Redis' tables. An idempotency key needs half as much.
local INDEX_BYTES = 300
local RECORD_BYTES = 1000 -- of a typical record without a request

-- Estimate the memory of an ended job whose answer has `num_bytes`. A job that was done has no
-- checkpoints.
local function memory_of(job, num_bytes, was_done)
  local key, size = P .. 'job:' .. job.id, INDEX_BYTES + num_bytes
  local record = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if type(record) ~= 'number' then -- some hosted services forbid this command
    return size + RECORD_BYTES + redis.call('HSTRLEN', key, 'body')
      + redis.call('HSTRLEN', key, 'request')
  end
  local tokens = not was_done and redis.pcall('MEMORY', 'USAGE', P .. 'tok:' .. job.id, 'SAMPLES', 0)
  return size + record + (tonumber(tokens) or 0) + (job.idem and INDEX_BYTES / 2 or 0)
end

-- Return the job's member of `ended`: its id, the bytes that are kept of it, and its tenant.
local function ended_member(job) return job.id .. ' ' .. job.kept .. ' ' .. job.tenant end

-- Add an ended job, whose answer has `num_bytes`, to the index of ended jobs.
local function index_ended(job, num_bytes, now, was_done)
  job.kept = memory_of(job, num_bytes, was_done)
  redis.call('HSET', P .. 'job:' .. job.id, 'kept', job.kept)
  redis.call('ZADD', P .. 'ended', now + job.retain, ended_member(job))
  redis.call('HINCRBY', P .. 'cnt', 'kept', job.kept)
  redis.call('ZINCRBY', P .. 'kept', job.kept, job.tenant)
  if job.idem then redis.call('PEXPIRE', idempotency_key(job.tenant, job.idem), job.retain) end
end

-- Codes of errors that say "try again": those whose HTTP status is 429 or 503.
local RETRYABLE = {
  queue_full = true, rate_limit_exceeded = true, adapter_unavailable = true, service_unavailable = true,
  file_store_unavailable = true, too_many_connections = true, server_stopping = true,
}
local RETRYABLE_RETAIN_MS = 60000

-- Let later requests with the job's idempotency key start a new job.
local function free_idempotency_key(job)
  if not job.idem then return end
  redis.call('HDEL', P .. 'job:' .. job.id, 'idem')
  redis.call('DEL', idempotency_key(job.tenant, job.idem))
  job.idem = false
end

-- If a job's error says "try again", requests with its idempotency key may start a new job. A batch
-- sends such a request again, so its earlier jobs expire soon.
local function release_retryable(job, error)
  if error == 'null' or not RETRYABLE[cjson.decode(error).code] then return end
  free_idempotency_key(job)
  if job.preemptible then job.retain = math.min(job.retain, RETRYABLE_RETAIN_MS) end
end

local FIELDS_UNTIL_END = { 'owner', 'reserved', 'bytes', 'gone', 'tag', 'score', 'cost', 'sequences', 'out',
  'deadline', 'lag', 'retain', 'requeued', 'features', 'key', 'books', 'metered', 'held', 'limit' }

local EVENT_OF_END = { done = 'completed' } -- other events have the names of the states

-- End a job. Every job ends through this function. If `job.may_retry` is set, a server error ended
-- the job, and its request is kept for `lorikeet retry` unless the request is large. `event` and
-- `result` come from the worker. If a script ends the job, they are nil and are built here.
local function end_job(job, state, now, usage, error, event, result)
  local key, num_bytes = P .. 'job:' .. job.id, tonumber(job.bytes or 0)
  release_retryable(job, error)
  local keeps_body = job.may_retry and num_bytes <= MAX_KEPT_BODY
  moment(job, EVENT_OF_END[state] or state, now, job.owner, error ~= 'null' and cjson.decode(error).code)
  redis.call('HSET', key, 'state', state, 'end', now, 'usage', usage, 'error', error,
    'timeline', job.timeline)
  redis.call('HDEL', key, unpack(FIELDS_UNTIL_END))
  if not keeps_body then redis.call('HDEL', key, 'body') end
  if num_bytes > 0 then count_bytes(job.tenant, -num_bytes) end
  redis.call('ZREM', P .. 'due', job.id)
  if job.features then redis.call('HDEL', P .. 'featured:' .. job.version, job.id) end
  if tonumber(job.sequences or 1) > 1 then redis.call('HDEL', P .. 'wide', job.id) end
  if job.state == 'running' then redis.call('SREM', P .. 'run:' .. job.version, job.id) end
  if job.cancel and job.owner then redis.call('SREM', P .. 'cancelled:' .. job.owner, job.id) end
  redis.call('PEXPIRE', key, job.retain)
  if state == 'done' then
    redis.call('DEL', P .. 'tok:' .. job.id) -- the result has every token
  else
    redis.call('PEXPIRE', P .. 'tok:' .. job.id, job.retain)
  end
  redis.call('HINCRBY', P .. 'cnt', state, 1)
  if state == 'failed' and not job.may_retry then redis.call('HINCRBY', P .. 'cnt', 'failed_client', 1) end
  if state ~= 'done' then record_unanswered(job, state, now, usage, error) end
  account(job, usage, now)
  local ending = ',"state":"' .. state .. '","usage":' .. usage .. ',"error":' .. error .. '}'
  local job_field = '"job":"' .. job.id .. '"'
  event = event or events_json({ '{"type":"end",' .. job_field .. ',"try":' .. job.try .. ending })
  result = result or '{"v":' .. PROTOCOL_VERSION .. ',' .. job_field .. ',"choices":[]' .. ending
  redis.call('SET', P .. 'res:' .. job.id, result, 'PX', job.retain)
  index_ended(job, #result, now, state == 'done')
  reply_all(job, event, now)
  redis.call('HDEL', P .. 'followers', job.id)
  redis.call('ZREM', P .. 'abandoned', job.id)
end

-- End a waiting job, and refund its cost to the tenant.
local function end_unrun(job, state, now, error)
  count_waiting(job.tenant, -1)
  charge(job, -job.cost)
  end_job(job, state, now, 'null', error)
end

-- End a job whose deadline passed while it waited. The caller has removed it from its queue.
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
