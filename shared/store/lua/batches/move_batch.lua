#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id runner from to now_s num_requests
-- Changes a batch's status from `from` to `to`. Nothing is changed if the batch has another status.
-- Returns the status after the call, or 'lost' if the runner has lost its lease. A client's change
-- has the runner '', and makes the next turn of the batch due.
local id, runner, from, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = P .. 'batch:' .. id
if runner ~= '' and redis.call('GET', P .. 'batchlease:' .. id) ~= runner then return 'lost' end
local status = redis.call('HGET', key, 'status')
if status ~= from then return status end
redis.call('HSET', key, 'status', to, to .. '_s', ARGV[5])
if ARGV[6] ~= '' then redis.call('HSET', key, 'num_requests', ARGV[6]) end
if runner == '' then
  redis.call('ZADD', P .. 'turns:' .. redis.call('HGET', key, 'tenant'), 'XX', 0, id)
end
return to
