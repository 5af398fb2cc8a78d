#!lua
-- At most 213 commands.
-- ARGV: id tenant max_open max_open_tenant max_tenant created_ms keep_ms field value...
-- Accepts a batch. Returns 'ok' | 'full' if the pool has `max_open` batches that haven't ended | 'busy'
-- if the tenant has `max_open_tenant` of them | 'many' if the tenant has `max_tenant` batches, ended or
-- not. The call may be repeated. `keep_ms` is the longest time for which a batch is kept.
local id, tenant, max_tenant = ARGV[1], ARGV[2], tonumber(ARGV[5])
local created_ms, keep_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
local key, list, open = P .. 'batch:' .. id, P .. 'batches:' .. tenant, P .. 'batches'
local NUM_OLDEST = 100

-- Remove expired batches from the tenant's list. Only the oldest ones are checked.
local function prune()
  for _, oldest in ipairs(redis.call('ZRANGE', list, 0, NUM_OLDEST - 1)) do
    if redis.call('EXISTS', P .. 'batch:' .. oldest) == 0 then redis.call('ZREM', list, oldest) end
  end
end

if redis.call('EXISTS', key) == 1 then return 'ok' end
if redis.call('ZCARD', open) >= tonumber(ARGV[3]) then return 'full' end
if redis.call('ZCARD', P .. 'turns:' .. tenant) >= tonumber(ARGV[4]) then return 'busy' end
if redis.call('ZCARD', list) >= max_tenant then prune() end
if redis.call('ZCARD', list) >= max_tenant then return 'many' end
redis.call('HSET', key, 'tenant', tenant, unpack(ARGV, 8))
redis.call('ZADD', open, created_ms, id)
redis.call('ZADD', list, created_ms, id)
redis.call('ZADD', P .. 'turns:' .. tenant, created_ms, id)
redis.call('ZADD', P .. 'turns', 'NX', 0, tenant)
if redis.call('PTTL', list) < keep_ms then redis.call('PEXPIRE', list, keep_ms) end
return 'ok'
