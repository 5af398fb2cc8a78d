#!lua
-- At most 7 commands.
-- ARGV: id tenant max_open created_ms keep_ms field value...
-- Accepts a batch. Returns 'ok' | 'full' if the pool has `max_open` batches that haven't ended. The
-- call may be repeated. `keep_ms` is the longest time for which a batch is kept.
local id, tenant, created_ms, keep_ms = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local key, list = P .. 'batch:' .. id, P .. 'batches:' .. tenant
if redis.call('EXISTS', key) == 1 then return 'ok' end
if redis.call('ZCARD', P .. 'batches') >= tonumber(ARGV[3]) then return 'full' end
redis.call('HSET', key, 'tenant', tenant, unpack(ARGV, 6))
redis.call('ZADD', P .. 'batches', created_ms, id)
redis.call('ZADD', list, created_ms, id)
redis.call('ZREMRANGEBYSCORE', list, '-inf', created_ms - keep_ms)
redis.call('PEXPIRE', list, keep_ms)
return 'ok'
