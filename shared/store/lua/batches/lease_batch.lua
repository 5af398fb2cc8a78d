#!lua flags=allow-oom
-- At most 3 commands.
-- ARGV: id runner lease_ms
-- Gives the exclusive right to run an open batch to a runner, or renews it. Returns 'ok' | 'taken' by
-- another runner | 'ended'.
local id, runner = ARGV[1], ARGV[2]
local key = P .. 'batchlease:' .. id
if not redis.call('ZSCORE', P .. 'batches', id) then return 'ended' end
local owner = redis.call('GET', key)
if owner and owner ~= runner then return 'taken' end
redis.call('SET', key, runner, 'PX', ARGV[3])
return 'ok'
