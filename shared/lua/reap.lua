#!lua flags=allow-oom
-- Gives up the workers whose lease has ended. Returns {workers, requeued, ended}.
local MAX_WORKERS = 8
local DEFAULT_LEASE_MS = 6000
local now = now_ms()

-- After a restart of Redis nobody could beat: let every worker have one whole lease.
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local known_id = redis.call('HGET', P .. 'cnt', 'run_id')
if known_id ~= run_id then redis.call('HSET', P .. 'cnt', 'run_id', run_id) end
if known_id and known_id ~= run_id then
  for _, wid in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    local lease_ms = redis.call('HGET', P .. 'w:' .. wid, 'lease') or DEFAULT_LEASE_MS
    redis.call('ZADD', P .. 'workers', 'GT', now + lease_ms, wid)
  end
end

local total = { 0, 0, 0 }
for _, wid in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now, 'LIMIT', 0, MAX_WORKERS)) do
  local moved = give_back_all(wid, true, now)
  total = { total[1] + 1, total[2] + moved[1], total[3] + moved[2] }
end
return total
