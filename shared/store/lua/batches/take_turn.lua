#!lua flags=allow-oom
-- At most 3 commands for each tenant with open batches, and 60.
-- ARGV: promise_ms max_turns max_tenant_turns
-- Gives a turn to the next batch. Returns {id, number of its turn}, or {} if no batch is due or enough
-- turns run. Tenants take turns by start-time fair queueing, where each turn costs the same.
-- A tenant's batches are in the order in which they are due.
local promise_ms, max_turns, max_tenant_turns = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local DEATHS_UNTIL_ALONE = 2
local now = now_ms()

-- Return the batches that have a turn as a set, and how many of them each tenant has. Return nil if
-- one of them must run alone.
local function running()
  local is_running, num_of = {}, {}
  for _, id in ipairs(redis.call('ZRANGE', P .. 'turning', 0, -1)) do
    local tenant, is_alone = unpack(redis.call('HMGET', P .. 'batch:' .. id, 'tenant', 'is_alone'))
    if is_alone then return nil end
    is_running[id] = true
    if tenant then num_of[tenant] = (num_of[tenant] or 0) + 1 end
  end
  return is_running, num_of
end

-- Return the tenant's first batch that is due and has no turn, or nil.
local function first_due(tenant, is_running, num_running)
  local due = redis.call('ZRANGE', P .. 'turns:' .. tenant, '-inf', now, 'BYSCORE', 'LIMIT', 0, num_running + 1)
  for _, id in ipairs(due) do
    if not is_running[id] then return id end
  end
end

-- Remove the tag of a tenant without open batches, once the tag has no effect any more.
local function forget_idle(tenant, tag, virtual_time)
  if tag <= virtual_time and redis.call('EXISTS', P .. 'turns:' .. tenant) == 0 then
    redis.call('ZREM', P .. 'turns', tenant)
  end
end

local function give(id, tenant, tag, virtual_time, is_alone)
  local key, start = P .. 'batch:' .. id, math.max(tag, virtual_time)
  local turn = redis.call('HINCRBY', key, 'turn', 1)
  if is_alone then redis.call('HSET', key, 'is_alone', 1) end
  redis.call('SET', P .. 'batchlease:' .. id, turn, 'PX', promise_ms)
  redis.call('ZADD', P .. 'turning', now + promise_ms, id)
  redis.call('ZADD', P .. 'turns', start + 1 / (redis.call('HGET', key, 'weight') or 1), tenant)
  redis.call('HSET', P .. 'cnt', 'turns_vtime', start)
  return { id, turn }
end

redis.call('ZREMRANGEBYSCORE', P .. 'turning', '-inf', now)
local num_running = redis.call('ZCARD', P .. 'turning')
local is_running, num_of = running()
if not is_running or num_running >= max_turns then return {} end
local virtual_time = tonumber(redis.call('HGET', P .. 'cnt', 'turns_vtime') or 0)
local tenants = redis.call('ZRANGE', P .. 'turns', 0, -1, 'WITHSCORES')
for i = 1, #tenants, 2 do
  local tenant, tag = tenants[i], tonumber(tenants[i + 1])
  local num_turns = num_of[tenant] or 0
  local id = num_turns < max_tenant_turns and first_due(tenant, is_running, num_turns)
  if id then
    -- If several control processes died in turns of a batch, it runs alone, so that it is to blame for
    -- the next death.
    local is_alone = tonumber(redis.call('HGET', P .. 'batch:' .. id, 'deaths') or 0) >= DEATHS_UNTIL_ALONE
    if is_alone and num_running > 0 then return {} end
    return give(id, tenant, tag, virtual_time, is_alone)
  end
  forget_idle(tenant, tag, virtual_time)
end
return {}
