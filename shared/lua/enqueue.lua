#!lua
-- ARGV: id version model tenant boost cost sequences out deadline_ms retain_ms
--       max_waiting max_waiting_adapter max_waiting_tenant body suspect
-- Returns {'ok', position} | {'dup', state} | {'full', which, waiting} | {'gone'}.
local id, version, model, tenant, boost = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local job_key, tenant_key = P .. 'job:' .. id, P .. 't:' .. tenant
local MEMORY_CHECK_MS = 250
local MAX_MEMORY_USE = 0.8
-- Ranks jobs of one tag by arrival: a thousandth of a token a job.
local ARRIVAL_STEP = 1 / 1024

local state = redis.call('HGET', job_key, 'state')
if state then return { 'dup', state } end
local now = now_ms()
local waiting, virtual_time, memory_ms, memory_high = unpack(redis.call('HMGET', P .. 'cnt',
  'waiting', 'vtime', 'memory_ms', 'memory_high'))
local tenant_tag, tenant_waiting = unpack(redis.call('HMGET', tenant_key, 'tag', 'waiting'))

-- INFO is dear, so its answer serves all API processes for a while.
local function memory_is_high()
  if now - (memory_ms or 0) < MEMORY_CHECK_MS then return memory_high == '1' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local most = tonumber(string.match(info, 'maxmemory:(%d+)'))
  local is_high = most > 0 and used > most * MAX_MEMORY_USE
  redis.call('HSET', P .. 'cnt', 'memory_ms', now, 'memory_high', is_high and 1 or 0)
  return is_high
end

local function limit_reached()
  local of_pool, of_tenant = tonumber(waiting or 0), tonumber(tenant_waiting or 0)
  if of_pool >= tonumber(ARGV[11]) then return { 'full', 'pool', of_pool } end
  local of_version = redis.call('ZCARD', P .. 'q:' .. version)
  if of_version >= tonumber(ARGV[12]) then return { 'full', 'adapter', of_version } end
  if of_tenant >= tonumber(ARGV[13]) then return { 'full', 'tenant', of_tenant } end
  if memory_is_high() then return { 'full', 'memory', of_pool } end
end

-- Whether the adapter was unloaded since the request was admitted.
local function is_gone()
  local entry_state = redis.call('HGET', version_key(version), 'state')
  if entry_state then return entry_state == 'unloaded' end
  local name = string.match(version, '^(.*)@')
  return name and redis.call('EXISTS', P .. 'adapter:' .. name) == 1
end

if is_gone() then return { 'gone' } end
local refusal = limit_reached()
if refusal then return refusal end

-- Start-time fair queueing: a tenant that was idle starts at the virtual time, a busy one behind
-- what it has queued already.
local tag = math.max(tonumber(virtual_time or 0), tonumber(tenant_tag or 0))
redis.call('HSET', tenant_key, 'tag', tag + tonumber(ARGV[6]))
local score = tag - boost + redis.call('HINCRBY', P .. 'cnt', 'arrivals', 1) * ARRIVAL_STEP
redis.call('HSET', job_key, 'state', 'queued', 'version', version, 'model', model, 'tenant', tenant,
  'tag', tag, 'score', score, 'cost', ARGV[6], 'sequences', ARGV[7], 'out', ARGV[8], 'enq', now,
  'deadline', now + tonumber(ARGV[9]), 'retain', ARGV[10], 'try', 0, 'body', ARGV[14])
redis.call('ZADD', P .. 'q:' .. version, score, id)
if ARGV[15] == '1' then redis.call('HSET', job_key, 'suspect', 1) end
local rank = redis.call('ZRANK', P .. 'q:' .. version, id)
if rank == 0 then reindex(version) end
count_waiting(tenant, 1)
wake(version)
return { 'ok', rank + 1 }
