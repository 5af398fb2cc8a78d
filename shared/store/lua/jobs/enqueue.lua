#!lua
-- At most 110 commands.
-- ARGV: each argument after its name, as `Queue.enqueue` passes them. `books` is the prefix of the
-- pool that has API keys and ledger, or '' for this pool.
-- Returns {'ok', position in the queue, use of the limits of the API key...} |
-- {'dup', state of the existing job} | {'same', job of an earlier request with the same key} |
-- {'conflict', job of an earlier request with another body} |
-- {'expired'} if `only_repeats` is 1 and there is no such request |
-- {'changed'} if `registry` isn't '' and isn't the revision of the registry |
-- {'full', reached limit, number of waiting jobs, answered jobs per second} |
-- {'gone'} if the version was unloaded | {'quarantined'} if it is in quarantine |
-- {'large', capacity in tokens of the largest worker that serves such jobs} if the job needs more |
-- {'unserved', needs, class of live workers...} if no live worker serves such jobs |
-- {'revoked'} if the request's API key isn't valid any more | {'limited', unit, window, limit, use,
-- ms until the window ends} if the request exceeds a limit of its key.
local arg = {}
for i = 1, #ARGV, 2 do arg[ARGV[i]] = ARGV[i + 1] end
local id, version, model, tenant = arg.id, arg.version, arg.model, arg.tenant
local boost, cost, deadline_ms = tonumber(arg.boost), tonumber(arg.cost), tonumber(arg.deadline_ms)
local job_key, tenant_key = P .. 'job:' .. id, P .. 't:' .. tenant
local MEMORY_CHECK_MS = 250
local MAX_MEMORY_USE = 0.8
-- Requests may use at most these shares of Redis' `maxmemory`, even if the limits in bytes are
-- higher.
local POOL_SHARE, TENANT_SHARE = 1 / 2, 1 / 4
-- Step that each arrival adds to scores, so that jobs with the same tag run in the order of arrival.
local ARRIVAL_STEP = 1 / 1024
local weight, idem, body_digest = arg.weight, arg.idempotency_digest, arg.body_digest
-- Settings of the front ends that other scripts read.
local SETTINGS = { 'retain_bytes', 'usage_days', 'unanswered_days', 'unanswered_bytes' }
local features, is_preemptible = arg.features, arg.is_preemptible == '1'
local key_id, books = arg.key_id, arg.books ~= '' and arg.books or P
-- Preemptible jobs are behind all others in the order of scores.
local PREEMPTIBLE_SCORE = 1e14

-- Return the reply for a request whose idempotency key already has a job, else nil. If that job was
-- deleted, or cancelled because its clients stayed away, it no longer has the field `idem`.
local function earlier_request()
  local found = redis.call('GET', idempotency_key(tenant, idem))
  local earlier, digest = string.match(found or '', '^(%S+) (%S+)$')
  if not earlier or redis.call('HGET', P .. 'job:' .. earlier, 'idem') ~= idem then return nil end
  if digest ~= body_digest then return { 'conflict', earlier } end
  redis.call('ZREM', P .. 'abandoned', earlier) -- a client has come back
  return { 'same', earlier }
end

local state = redis.call('HGET', job_key, 'state')
if state then return { 'dup', state } end
local earlier = idem ~= '' and earlier_request()
if earlier then return earlier end
if arg.only_repeats == '1' then return { 'expired' } end
if arg.retry_of ~= '' and not may_retry(arg.retry_of, arg.letter) then return { 'dup', 'retried' } end
local now, lag = read_clock()
local num_bytes = #arg.body + #arg.spec + #arg.request
local tag_field, virtual_time_field = fair_queueing_fields(is_preemptible)
local found = redis.call('HMGET', P .. 'cnt', 'waiting', virtual_time_field, 'memory_ms', 'memory_high',
  'max_memory', 'bytes', 'rate', 'rated', 'registry', unpack(SETTINGS))
local waiting, virtual_time, memory_ms, memory_high, max_memory, bytes, rate, rated, revision =
  unpack(found, 1, 9)
if arg.registry ~= '' and arg.registry ~= (revision or '0') then return { 'changed' } end
local tenant_tag, tenant_waiting, tenant_bytes = unpack(redis.call('HMGET', tenant_key,
  tag_field, 'waiting', 'bytes'))

-- INFO is slow, so all API processes share its result for MEMORY_CHECK_MS.
local function measure_memory()
  if max_memory and math.abs(now - (memory_ms or 0)) < MEMORY_CHECK_MS then return end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  max_memory = tonumber(string.match(info, 'maxmemory:(%d+)'))
  memory_high = (max_memory > 0 and used > max_memory * MAX_MEMORY_USE) and '1' or '0'
  redis.call('HSET', P .. 'cnt', 'memory_ms', now, 'memory_high', memory_high, 'max_memory', max_memory)
end

local function bytes_left(limit, share, taken)
  local memory = tonumber(max_memory)
  if memory > 0 then limit = math.min(limit, memory * share) end
  return limit - (taken or 0)
end

-- Return the refusal for the first limit that is reached, or nil. The limit of a tenant's bytes
-- doesn't apply to a tenant's only request.
local function limit_reached()
  local of_pool, of_tenant = tonumber(waiting or 0), tonumber(tenant_waiting or 0)
  if of_pool >= tonumber(arg.max_waiting) then return { 'full', 'pool', of_pool } end
  local of_version = redis.call('ZCARD', P .. 'q:' .. version)
  if of_version >= tonumber(arg.max_waiting_adapter) then return { 'full', 'adapter', of_version } end
  if of_tenant >= tonumber(arg.max_waiting_tenant) then return { 'full', 'tenant', of_tenant } end
  measure_memory()
  if memory_high == '1' then return { 'full', 'memory', of_pool } end
  if num_bytes > bytes_left(tonumber(arg.max_bytes), POOL_SHARE, bytes) then
    return { 'full', 'bytes of the pool', of_pool }
  end
  if tonumber(tenant_bytes or 0) > 0
    and num_bytes > bytes_left(tonumber(arg.max_bytes_tenant), TENANT_SHARE, tenant_bytes) then
    return { 'full', 'bytes of the tenant', of_tenant }
  end
end

-- Return the capacity in tokens of the largest live worker that serves such jobs if the job needs
-- more, else nil or false.
local function too_large_for()
  local largest = largest_capacity(classes_serving(version, features))
  return largest and cost > largest and largest
end

-- Return the refusal if workers live but none of them serves such jobs. Only live workers have classes,
-- and the live workers that serve everything are in `capacity`.
local function unserved()
  if #classes() == 0 or redis.call('EXISTS', P .. 'capacity') == 1 then return nil end
  if #classes_serving(version, features) > 1 then return nil end
  return { 'unserved', needs_of(version, features), unpack(classes()) }
end

-- Return the refusal if the version was unloaded or quarantined after the request was admitted.
local function refused_version()
  local entry_state = redis.call('HGET', version_key(version), 'state')
  if entry_state == 'unloaded' then return { 'gone' } end
  if entry_state == 'quarantined' then return { 'quarantined' } end
  local name = not entry_state and string.match(version, '^(.*)@')
  if name and redis.call('EXISTS', P .. 'adapter:' .. name) == 1 then return { 'gone' } end
end

-- Add the rate of answered jobs to the refusal of a full queue. The rate decays while no job ends.
local function with_rate(refusal)
  local per_s = (rate or 0) * math.exp(-math.max(0, now - (rated or now)) / RATE_MS)
  if refusal[1] == 'full' then refusal[4] = string.format('%.9f', per_s) end
  return refusal
end

local most_tokens = too_large_for()
if most_tokens then return { 'large', most_tokens } end
local refusal = refused_version() or unserved() or limit_reached()
if refusal then return with_rate(refusal) end
local account = key_id ~= '' and valid_account(books, key_id, now)
if account == nil then return { 'revoked' } end
refusal = account and exceeded(account, cost)
if refusal then return refusal end

-- Start-time fair queueing: the tag of an idle tenant's first job is the virtual time. The tags of
-- further jobs follow those of the tenant's earlier jobs.
local tag = math.max(tonumber(virtual_time or 0), tonumber(tenant_tag or 0))
redis.call('HSET', tenant_key, tag_field, tag + cost / weight)
if is_preemptible then boost = boost - PREEMPTIBLE_SCORE end
local score = tag - boost + redis.call('HINCRBY', P .. 'cnt', 'arrivals', 1) * ARRIVAL_STEP
redis.call('HSET', job_key, 'state', 'queued', 'version', version, 'model', model, 'tenant', tenant,
  'tag', tag, 'score', score, 'cost', arg.cost, 'sequences', arg.sequences, 'out', arg.out, 'enq', now,
  'deadline', now + deadline_ms, 'retain', arg.retain_ms, 'try', 0, 'body', arg.body,
  'bytes', num_bytes, 'spec', arg.spec,
  'timeline', moment({}, 'accepted', now) .. moment({}, 'queued', now))
if weight ~= '1' then redis.call('HSET', job_key, 'weight', weight) end
if arg.rid ~= '' then redis.call('HSET', job_key, 'rid', arg.rid) end
if arg.request ~= '' then redis.call('HSET', job_key, 'request', arg.request) end
if features ~= '' then
  redis.call('HSET', job_key, 'features', features)
  redis.call('HSET', P .. 'featured:' .. version, id, features)
end
if account then
  redis.call('HSET', job_key, 'key', key_id)
  charge_request(account, id, cost)
end
if tonumber(arg.sequences) > 1 then redis.call('HSET', P .. 'wide', id, arg.sequences) end
if arg.books ~= '' then redis.call('HSET', job_key, 'books', books) end
if arg.keeps_running == '1' then redis.call('HSET', job_key, 'keep', 1) end
if is_preemptible then redis.call('HSET', job_key, 'preemptible', 1) end
if idem ~= '' then
  redis.call('HSET', job_key, 'idem', idem)
  redis.call('SET', idempotency_key(tenant, idem), id .. ' ' .. body_digest, 'PX',
    deadline_ms + arg.retain_ms + DAY_MS) -- shortened when the job ends
end
-- Preemptible jobs come from the control process, which may lack the settings of the front ends.
for i, name in ipairs(is_preemptible and {} or SETTINGS) do
  if arg[name] ~= found[9 + i] then redis.call('HSET', P .. 'cnt', name, arg[name]) end
end
redis.call('ZADD', P .. 'jobs:' .. tenant, now, id)
redis.call('ZADD', P .. 'jobs', now, id)
if lag ~= 0 then redis.call('HSET', job_key, 'lag', lag) end
redis.call('ZADD', P .. 'due', now + deadline_ms - lag, id)
redis.call('ZADD', P .. 'q:' .. version, score, id)
if arg.retry_of ~= '' then mark_retried(arg.retry_of, arg.letter, id) end
if arg.is_suspect == '1' then
  redis.call('HSET', job_key, 'suspect', 1, 'deaths', DEATHS_UNTIL_SUSPECT)
end
local rank = redis.call('ZRANK', P .. 'q:' .. version, id)
if rank == 0 then reindex(version) end
count_waiting(tenant, 1)
count_bytes(tenant, num_bytes)
wake(version, features)
return append_windows({ 'ok', rank + 1 }, account or {})
