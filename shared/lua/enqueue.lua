#!lua
-- ARGV: id version model tenant boost cost sequences out deadline_ms retain_ms
--       max_waiting max_waiting_adapter max_waiting_tenant body
-- Returns {'ok', position} | {'dup', state} | {'full', which, waiting}.
local id, version, model, tenant, boost = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local job_key, tenant_key = P .. 'job:' .. id, P .. 't:' .. tenant
local MEMORY_CHECK_MS = 250
local MAX_MEMORY_USE = 0.8
-- Ranks jobs of one tag by arrival: a thousandth of a token a job.
local ARRIVAL_STEP = 1 / 1024

-- INFO is dear, so its answer serves all API processes for a while.
local function memory_is_high(now)
  local last = redis.call('HMGET', P .. 'cnt', 'memory_ms', 'memory_high')
  if now - tonumber(last[1] or 0) < MEMORY_CHECK_MS then return last[2] == '1' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local most = tonumber(string.match(info, 'maxmemory:(%d+)'))
  local is_high = most > 0 and used > most * MAX_MEMORY_USE
  redis.call('HSET', P .. 'cnt', 'memory_ms', now, 'memory_high', is_high and 1 or 0)
  return is_high
end

local function limit_reached(waiting, now)
  if waiting >= tonumber(ARGV[11]) then return { 'full', 'pool', waiting } end
  local of_version = redis.call('ZCARD', P .. 'q:' .. version)
  if of_version >= tonumber(ARGV[12]) then return { 'full', 'adapter', of_version } end
  local of_tenant = tonumber(redis.call('HGET', tenant_key, 'waiting') or 0)
  if of_tenant >= tonumber(ARGV[13]) then return { 'full', 'tenant', of_tenant } end
  if memory_is_high(now) then return { 'full', 'memory', waiting } end
end

local state = redis.call('HGET', job_key, 'state')
if state then return { 'dup', state } end
local now = now_ms()
local counters = redis.call('HMGET', P .. 'cnt', 'waiting', 'vtime')
local refusal = limit_reached(tonumber(counters[1] or 0), now)
if refusal then return refusal end

-- Start-time fair queueing: a tenant that was idle starts at the virtual time, a busy one behind
-- what it has queued already.
local tag = math.max(tonumber(counters[2] or 0), tonumber(redis.call('HGET', tenant_key, 'tag') or 0))
redis.call('HSET', tenant_key, 'tag', tag + tonumber(ARGV[6]))
local score = tag - boost + redis.call('HINCRBY', P .. 'cnt', 'arrivals', 1) * ARRIVAL_STEP
redis.call('HSET', job_key, 'state', 'queued', 'version', version, 'model', model, 'tenant', tenant,
  'tag', tag, 'score', score, 'cost', ARGV[6], 'sequences', ARGV[7], 'out', ARGV[8], 'enq', now,
  'deadline', now + tonumber(ARGV[9]), 'retain', ARGV[10], 'try', 0, 'body', ARGV[14])
redis.call('ZADD', P .. 'q:' .. version, score, id)
reindex(version)
count_waiting(tenant, 1)
wake(version)
return { 'ok', redis.call('ZRANK', P .. 'q:' .. version, id) + 1 }
