#!lua flags=allow-oom
-- At most 35 commands for each version; callers send 32 at a time.
-- ARGV: wid steal_ms {version running is_due}... If a version is due and the worker's replica is
-- surplus, removes the worker from the version's holders. Holders that serve fewer jobs than this
-- worker don't replace it. Returns the standing of each replica
-- ('needed' | 'surplus' | 'gone' | 'sole'), or 0 if the worker was declared dead.
local wid, steal_ms = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local now, lag = read_clock()
local own_class = #classes() > 0 and load_of(wid).class or nil

local function shrink(version, running, is_due)
  -- An earlier call may have removed the worker, and its reply may have been lost.
  if redis.call('SISMEMBER', P .. 'on:' .. version, wid) == 0 then return 'gone' end
  local free, _, num_others = capacity_of_holders(version, wid, own_class)
  if num_others == 0 then return 'sole' end
  local waiting = redis.call('ZCARD', P .. 'q:' .. version)
  if waited_ms(version, now, lag) > steal_ms or not is_surplus(waiting, running, free) then
    return 'needed'
  end
  if not is_due then return 'surplus' end
  unhold(wid, version)
  return 'gone'
end

local standing = {}
for i = 3, #ARGV, 3 do
  standing[#standing + 1] = shrink(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1')
end
return standing
