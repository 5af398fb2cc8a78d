#!lua flags=allow-oom
-- Gives up the workers whose lease has ended, and ends overdue jobs that head their queues: those of
-- a version that nobody claims. Returns {workers, requeued, ended, expired}.
local MAX_WORKERS = 8
local MAX_VERSIONS = 64 -- drawn by lot, so that all get their turn
local MAX_EXPIRED = 64
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

local num_expired = 0

local function is_overdue(job) return not job.deadline or tonumber(job.deadline) <= now end

local function expire_heads(version)
  local before = num_expired
  while num_expired < MAX_EXPIRED do
    local id = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
    local job = id and read_job(id, 'deadline', 'try', 'out', 'retain', 'tenant', 'cost')
    if not job or not is_overdue(job) then break end
    redis.call('ZREM', P .. 'q:' .. version, id)
    if job.deadline then expire(job, now) else count_waiting(nil, -1) end -- or its hash was deleted
    num_expired = num_expired + 1
  end
  if num_expired > before then reindex(version) end
end

local total = { 0, 0, 0 }
for _, wid in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now, 'LIMIT', 0, MAX_WORKERS)) do
  local moved = give_back_all(wid, true, now)
  total = { total[1] + 1, total[2] + moved[1], total[3] + moved[2] }
end
if total[1] > 0 then redis.call('HINCRBY', P .. 'cnt', 'workers_lost', total[1]) end
for _, version in ipairs(redis.call('ZRANDMEMBER', P .. 'ready', MAX_VERSIONS)) do
  expire_heads(version)
end
return { total[1], total[2], total[3], num_expired }
