#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id tenant. Deletes the record of a batch that has ended, and doesn't announce its end any more.
-- Returns 'ok' | 'open' if it hasn't ended.
local id = ARGV[1]
local key = P .. 'batch:' .. id
if redis.call('ZSCORE', P .. 'batches', id) then return 'open' end
local status = redis.call('HGET', key, 'status')
if status then
  local ended_s = redis.call('HGET', key, status .. '_s')
  redis.call('ZREM', P .. 'webhooks', id .. ' ' .. status .. ' ' .. (ended_s or ''))
end
redis.call('DEL', key)
redis.call('ZREM', P .. 'batches:' .. ARGV[2], id)
return 'ok'
