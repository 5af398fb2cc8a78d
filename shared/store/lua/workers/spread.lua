-- Included after common.lua in the scripts that decide how many workers hold a version.
local SAMPLED_HOLDERS = 8 -- holders of a version that are sampled; it may have a thousand
local SLACK = 2 -- times the capacity for a replica's jobs that must be free elsewhere to give it up

-- Return whether the waiting jobs of busy holders need another holder: the last job would wait longer
-- for them than for a load by another worker and its turn there.
local function needs_holder(waiting, running, run_ms, load_ms, turn_ms)
  return running > 0 and waiting * run_ms > running * (load_ms + turn_ms)
end

-- Return whether other holders with the capacity `free` can run all waiting jobs and the jobs of one
-- replica, with a margin so that the replica isn't needed again soon.
local function is_surplus(waiting, running, free)
  return free > 0 and SLACK * (waiting + running) <= free
end

local loads = {} -- by worker, since a worker holds many of the versions that a script considers

-- Return the number of jobs of a worker, and how many more it has capacity for.
local function load_of(wid)
  if not loads[wid] then
    local owned = redis.call('ZCARD', P .. 'own:' .. wid)
    local max_jobs = redis.call('HGET', P .. 'w:' .. wid, 'seqs') or 0
    loads[wid] = { owned = owned, free = math.max(0, max_jobs - owned) }
  end
  return loads[wid]
end

-- Return the free capacity of a version's holders other than `wid`, the number of their jobs, and the
-- number of these holders. Of many holders, a random sample represents all.
local function capacity_of_holders(version, wid)
  local key, free, running, sampled = P .. 'on:' .. version, 0, 0, 0
  for _, holder in ipairs(redis.call('SRANDMEMBER', key, SAMPLED_HOLDERS)) do
    if holder ~= wid then
      sampled = sampled + 1
      free, running = free + load_of(holder).free, running + load_of(holder).owned
    end
  end
  local others = redis.call('SCARD', key) - redis.call('SISMEMBER', key, wid)
  local share = sampled > 0 and others / sampled or 0
  return free * share, running * share, others
end

-- Return how long the first job of a version has waited, in pool time.
local function waited_ms(version, now, lag)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
  if not head then return 0 end
  local enqueued, lag_then = unpack(redis.call('HMGET', P .. 'job:' .. head, 'enq', 'lag'))
  return (now - lag) - ((enqueued or now) - (lag_then or 0))
end
