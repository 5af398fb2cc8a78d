#!lua flags=allow-oom
-- At most 35 commands for each version; callers send 32 at a time.
-- ARGV: wid steal_ms {version running is_due}... Removes the worker from the holders of the versions
-- that are due and whose replica is surplus. Returns the standing of each replica: 'needed' |
-- 'surplus' | 'gone' | 'sole'; 0 if the worker was given up.
local wid, steal_ms = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local now, lag = read_clock()

local function shrink(version, running, is_due)
  -- The reply of an earlier call that removed the worker may have been lost.
  if redis.call('SISMEMBER', P .. 'on:' .. version, wid) == 0 then return 'gone' end
  local free, _, num_others = capacity_of_holders(version, wid)
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
