#!lua flags=allow-oom
-- At most 4 commands.
-- ARGV: id tenant. Deletes the record of a batch that has ended. Returns 'ok' | 'open' if it hasn't
-- ended.
local id = ARGV[1]
if redis.call('ZSCORE', P .. 'batches', id) then return 'open' end
redis.call('DEL', P .. 'batch:' .. id)
redis.call('ZREM', P .. 'batches:' .. ARGV[2], id)
return 'ok'
