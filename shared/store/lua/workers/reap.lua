#!lua flags=allow-oom
-- At most 950 commands, and 4 for each dead worker and class.
-- ARGV: every_ms. Marks workers as missing when their leases have ended, and declares them dead if
-- they are still missing at a later call. Does nothing if the last call was less than about
-- every_ms ago, so that one process sweeps at a time. Returns {number of workers that this call
-- declared dead, worker whose jobs aren't handed over yet...}, or false if the call did nothing.
local MAX_WORKERS = 50
local MAX_LOST = 64
local MAX_LEASE_MS = 20000
local DEFAULT_LEASE_MS = 6000
local NUM_SAMPLES, SAMPLE_MS, HISTORY_TTL_MS = 300, 900, 600000
-- Milliseconds between two samples of the long histories, as in shared/store/views/history.py.
local LONG_STEPS_MS = { 12000, 288000 }
local MAX_PROCESSES = 32
local NUM_BUCKETS = 25 -- of the times to first token, see shared/protocol/workers.py
local EARLY = 0.9 -- share of every_ms after which a call may come, since callers' timers differ
local GAPS = 2.5 -- longest normal time between two calls, in multiples of every_ms
local CONFIRM = 1 / 6 -- share of a lease for which a worker is missing before it is declared dead
local every_ms, now = tonumber(ARGV[1]), now_ms()
local swept, lag, lease_ms, resumed = unpack(redis.call('HMGET', P .. 'cnt',
  'swept', 'lag', 'lease', 'resumed'))
local since = now - (swept or now)
lag, resumed = tonumber(lag or 0), tonumber(resumed or 0)
if swept and since >= 0 and since < EARLY * every_ms then return false end

-- If no process swept for half a lease, Redis stalled or was unavailable, or its clock jumped.
-- Workers couldn't renew their leases, so each worker gets another lease from now. Pool time
-- continues where it stopped.
local stall_ms = math.max((lease_ms or DEFAULT_LEASE_MS) / 2, GAPS * every_ms)
if since < 0 or since > stall_ms then lag = lag + since end
if math.abs(since) > stall_ms then resumed = now end
redis.call('HSET', P .. 'cnt', 'swept', now, 'lag', lag, 'resumed', resumed, 'stall_ms', stall_ms)

local function lease_of(wid)
  return tonumber(redis.call('HGET', P .. 'w:' .. wid, 'lease') or DEFAULT_LEASE_MS)
end

-- If a lease ends later than a new lease could, it was renewed while the clock was ahead.
local ahead = redis.call('ZRANGEBYSCORE', P .. 'workers', '(' .. now + MAX_LEASE_MS, '+inf',
  'LIMIT', 0, MAX_WORKERS)
for _, wid in ipairs(ahead) do redis.call('ZADD', P .. 'workers', now + lease_of(wid), wid) end

local function add_sample(key, line, ttl_ms)
  redis.call('LPUSH', key, line)
  redis.call('LTRIM', key, 0, NUM_SAMPLES - 1)
  redis.call('PEXPIRE', key, ttl_ms)
end

-- Add a sample of the pool's totals to its history, about once a second, and to the long histories.
local function sample()
  local waiting, done, sampled, failed, failed_client, dead, expired = unpack(redis.call('HMGET', P .. 'cnt',
    'waiting', 'done', 'sampled', 'failed', 'failed_client', 'dead', 'expired'))
  if math.abs(now - (sampled or 0)) < SAMPLE_MS then return end
  local names = { 'tokens' }
  for i = 1, NUM_BUCKETS do names[i + 1] = 'first_' .. i - 1 end
  local served = redis.call('HMGET', P .. 'served', unpack(names))
  for i = 1, #names do served[i] = served[i] or 0 end
  local line = { string.format('%d', now), waiting or 0, redis.call('ZCARD', P .. 'due'), done or 0,
    unpack(served) }
  line[#line + 1] = (failed or 0) - (failed_client or 0) + (dead or 0) + (expired or 0)
  redis.call('HSET', P .. 'cnt', 'sampled', now)
  add_sample(P .. 'history', table.concat(line, ' '), HISTORY_TTL_MS)
  for _, step_ms in ipairs(LONG_STEPS_MS) do
    local key = P .. 'history:' .. step_ms
    local newest = tonumber(string.match(redis.call('LINDEX', key, 0) or '0', '^%d+'))
    if math.abs(now - newest) >= step_ms - SAMPLE_MS then
      add_sample(key, table.concat(line, ' '), 2 * NUM_SAMPLES * step_ms)
    end
  end
end

-- Record that Redis was restarted, or that another server has taken over.
local function watch_server()
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local before = redis.call('HGET', P .. 'cnt', 'run_id')
  if before == run_id then return end
  redis.call('HSET', P .. 'cnt', 'run_id', run_id)
  if before then record_incident('redis_restarted') end
end

-- Record the deaths of front ends and control processes.
local function watch_processes()
  local silent = redis.call('ZRANGEBYSCORE', P .. 'processes', '-inf', now - lag - API_DEAD_MS,
    'LIMIT', 0, MAX_PROCESSES)
  for _, member in ipairs(silent) do
    local kind, id = string.match(member, '^(%S+) (.*)$')
    redis.call('ZREM', P .. 'processes', member)
    record_incident(kind .. '_lost', 'process', id)
  end
end

local function give_up(wid)
  take_out(wid, redis.call('ZCARD', P .. 'own:' .. wid))
  redis.call('HINCRBY', P .. 'cnt', 'workers_lost', 1)
end

local num_given_up = 0
local silent = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now, 'LIMIT', 0, MAX_WORKERS)
for _, wid in ipairs(silent) do
  local lease = lease_of(wid)
  if resumed > now or resumed + lease <= now then
    local missing_since = redis.call('ZSCORE', P .. 'missing', wid)
    if not missing_since or tonumber(missing_since) > now then
      redis.call('ZADD', P .. 'missing', now, wid)
    elseif now - missing_since >= CONFIRM * lease then
      give_up(wid)
      num_given_up = num_given_up + 1
    end
  end
end
sample()
watch_server()
watch_processes()
return { num_given_up, unpack(redis.call('ZRANGE', P .. 'lost', 0, MAX_LOST - 1)) }
