-- Included after common.lua in the scripts that decide how many workers hold a version.
local SAMPLED_HOLDERS = 8 -- sample size, since a version may have a thousand holders
local SLACK = 2 -- a replica is surplus if other holders have this many times the needed capacity

-- Return whether the waiting jobs of a version need another holder. They do if the last job would
-- wait longer for the busy holders than for another worker to load the version and run the job.
local function needs_holder(waiting, running, run_ms, load_ms, turn_ms)
  return running > 0 and waiting * run_ms > running * (load_ms + turn_ms)
end

-- Return whether the free capacity of the other holders suffices for all waiting jobs and the jobs
-- of this replica. SLACK is a margin, so that the replica isn't needed again soon.
local function is_surplus(waiting, running, free)
  return free > 0 and SLACK * (waiting + running) <= free
end

local loads = {} -- cache by worker, since a worker may hold many of the versions in one call

-- Return the number of jobs of a worker, how many more it has capacity for, and its class.
local function load_of(wid)
  if not loads[wid] then
    local owned = redis.call('ZCARD', P .. 'own:' .. wid)
    local max_jobs, class, mode = unpack(redis.call('HMGET', P .. 'w:' .. wid, 'seqs', 'class', 'mode'))
    if mode then max_jobs = 0 end -- it takes no jobs
    loads[wid] = { owned = owned, free = math.max(0, (max_jobs or 0) - owned), class = class or '' }
  end
  return loads[wid]
end

-- Return the free capacity of a version's holders other than `wid`, the number of their jobs, and
-- the number of these holders. With `needs`, only holders that serve jobs with these needs are included.
-- If there are many holders, the results are estimated from a random sample.
local function capacity_of_holders(version, wid, needs)
  local key, free, running, sampled, able = P .. 'on:' .. version, 0, 0, 0, 0
  for _, holder in ipairs(redis.call('SRANDMEMBER', key, SAMPLED_HOLDERS)) do
    if holder ~= wid then
      local load = load_of(holder)
      sampled = sampled + 1
      if not needs or serves(load.class, needs) then
        able, free, running = able + 1, free + load.free, running + load.owned
      end
    end
  end
  local others = redis.call('SCARD', key) - redis.call('SISMEMBER', key, wid)
  local share = sampled > 0 and others / sampled or 0
  return free * share, running * share, needs and able * share or others
end

-- Return how long the first job of a version has waited, in pool time.
local function waited_ms(version, now, lag)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
  if not head then return 0 end
  local enqueued, lag_then = unpack(redis.call('HMGET', P .. 'job:' .. head, 'enq', 'lag'))
  return (now - lag) - ((enqueued or now) - (lag_then or 0))
end
