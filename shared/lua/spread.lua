-- Put behind common.lua in the scripts that decide how many workers hold a version.
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

-- How many jobs a worker other than the caller has, and how many more it has room for.
local function load_of(wid)
  if not loads[wid] then
    local owned = redis.call('ZCARD', P .. 'own:' .. wid)
    local most = redis.call('HGET', P .. 'w:' .. wid, 'seqs') or 0
    loads[wid] = { owned = owned, free = math.max(0, most - owned) }
  end
  return loads[wid]
end

local function waited_ms(version, now)
  local head = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
  return now - (head and redis.call('HGET', P .. 'job:' .. head, 'enq') or now)
end
