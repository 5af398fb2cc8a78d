#!lua flags=allow-oom
-- At most 34 commands.
-- ARGV: id runner status now_s retain_ms webhook {field value}...
-- Ends a batch, and makes its record expire after `retain_ms`. With `webhook` = '1', its end is also
-- announced. Returns 'ok' | 'lost'.
local id, runner, status, now_s, retain_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
-- Time after which a run that has lost its lease writes no more parts.
local PARTS_MS = 60000
local key = P .. 'batch:' .. id
if redis.call('GET', P .. 'batchlease:' .. id) ~= runner then return 'lost' end
redis.call('HSET', key, 'status', status, status .. '_s', now_s, unpack(ARGV, 7))
redis.call('PEXPIRE', key, retain_ms)
redis.call('HDEL', key, 'turn', 'deaths', 'failures', 'failure', 'is_alone', 'weight')
local tenant = redis.call('HGET', key, 'tenant')
local list = P .. 'batches:' .. tenant
if redis.call('PTTL', list) < tonumber(retain_ms) then redis.call('PEXPIRE', list, retain_ms) end
redis.call('ZREM', P .. 'batches', id)
redis.call('ZADD', P .. 'endedbatches', now_s * 1000 + PARTS_MS, id)
redis.call('ZREM', P .. 'turns:' .. tenant, id)
redis.call('ZREM', P .. 'turning', id)
if redis.call('EXISTS', P .. 'batches') == 0 then -- no tenant waits for turns any more
  redis.call('DEL', P .. 'turns')
  redis.call('HDEL', P .. 'cnt', 'turns_vtime')
end
for _, kind in ipairs({ 'batchdone:', 'batchparts:', 'batchlease:' }) do redis.call('DEL', P .. kind .. id) end
if ARGV[6] == '1' then redis.call('ZADD', P .. 'webhooks', 0, id .. ' ' .. status .. ' ' .. now_s) end
return 'ok'
