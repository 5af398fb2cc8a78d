#!lua flags=allow-oom
-- At most 25 commands.
-- ARGV: id runner lease_ms is_begin
-- Renews the right to run a batch. With `is_begin` = '1', also counts a death of the control process in
-- advance; the end of the turn resets it. Returns {'ok', number of tenants with turns, number of turns of
-- the batch's tenant} | {'lost'}.
local id, runner, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('GET', P .. 'batchlease:' .. id) ~= runner then return { 'lost' } end
redis.call('SET', P .. 'batchlease:' .. id, runner, 'PX', lease_ms)
redis.call('ZADD', P .. 'turning', now_ms() + lease_ms, id)
if ARGV[4] == '1' then redis.call('HINCRBY', P .. 'batch:' .. id, 'deaths', 1) end
local num_of, num_tenants, own = {}, 0, redis.call('HGET', P .. 'batch:' .. id, 'tenant')
for _, other in ipairs(redis.call('ZRANGE', P .. 'turning', 0, -1)) do
  local tenant = redis.call('HGET', P .. 'batch:' .. other, 'tenant')
  if tenant and not num_of[tenant] then num_tenants = num_tenants + 1 end
  if tenant then num_of[tenant] = (num_of[tenant] or 0) + 1 end
end
return { 'ok', num_tenants, num_of[own] }
