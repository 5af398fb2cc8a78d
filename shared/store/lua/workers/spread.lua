-- Put behind common.lua in the scripts that decide how many workers hold a version.
local LOOKS = 8 -- at holders of a version, where there may be a thousand
local SLACK = 2 -- times the room that a copy's jobs take must be free elsewhere to do without it

-- Whether jobs that wait for full workers need one more: the last of them would wait for longer
-- than it takes to load their adapter there and to have its turn.
local function needs_holder(waiting, running, run_ms, load_ms, turn_ms)
  return running > 0 and waiting * run_ms > running * (load_ms + turn_ms)
end

-- Whether workers with `free` room could do what waits, and what one runs with its own copy, and
-- would be far from needing it back.
local function is_surplus(waiting, running, free)
  return free > 0 and SLACK * (waiting + running) <= free
end

local loads = {} -- by worker; one holds many of the versions that a script looks at

-- How many jobs a worker has, and how many more it has room for.
local function load_of(wid)
  if not loads[wid] then
    local owned = redis.call('ZCARD', P .. 'own:' .. wid)
    local most = redis.call('HGET', P .. 'w:' .. wid, 'seqs') or 0
    loads[wid] = { owned = owned, free = math.max(0, most - owned) }
  end
  return loads[wid]
end

-- How many more jobs the holders of a version other than `wid` have room for, how many they have, and
-- how many holders these are. Of many holders some are drawn by lot and stand for all.
local function room_of_holders(version, wid)
  local key, free, running, looked = P .. 'on:' .. version, 0, 0, 0
  for _, holder in ipairs(redis.call('SRANDMEMBER', key, LOOKS)) do
    if holder ~= wid then
      looked = looked + 1
      free, running = free + load_of(holder).free, running + load_of(holder).owned
    end
  end
  local others = redis.call('SCARD', key) - redis.call('SISMEMBER', key, wid)
  local share = looked > 0 and others / looked or 0
  return free * share, running * share, others
end

-- How long the next job of a version has waited, in pool time.
local function waited_ms(version, now, lag)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
  if not head then return 0 end
  local enqueued, lag_then = unpack(redis.call('HMGET', P .. 'job:' .. head, 'enq', 'lag'))
  return (now - lag) - ((enqueued or now) - (lag_then or 0))
end
