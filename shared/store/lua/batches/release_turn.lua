#!lua flags=allow-oom
-- At most 9 commands.
-- ARGV: id runner wait_ms failure
-- Ends a turn. The next turn is due after `wait_ms`. With 0, it is due at once, in the order of the ages
-- of batches. If `failure` isn't '', also counts a failed turn. Returns 'ok' | 'lost'.
local id, runner, wait_ms, failure = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local key = P .. 'batch:' .. id
if redis.call('GET', P .. 'batchlease:' .. id) ~= runner then return 'lost' end
redis.call('DEL', P .. 'batchlease:' .. id)
redis.call('ZREM', P .. 'turning', id)
redis.call('HDEL', key, 'deaths', 'is_alone')
if failure ~= '' then
  redis.call('HINCRBY', key, 'failures', 1)
  redis.call('HSET', key, 'failure', failure)
end
local tenant, created_s = unpack(redis.call('HMGET', key, 'tenant', 'created_s'))
local due = wait_ms > 0 and now_ms() + wait_ms or created_s * 1000
redis.call('ZADD', P .. 'turns:' .. tenant, 'XX', due, id)
return 'ok'
