#!lua flags=allow-oom
-- At most 35 commands for each version; callers send 32 at a time.
-- ARGV: wid steal_ms {version running is_due}... Takes the worker out of the holders of due copies
-- that are surplus. Returns how each stands: 'needed' | 'surplus' | 'gone' | 'sole'; 0 when the worker
-- was given up.
local wid, steal_ms = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local now, lag = read_clock()

local function settle(version, running, is_due)
  -- The reply of the call that did it may have been lost.
  if redis.call('SISMEMBER', P .. 'on:' .. version, wid) == 0 then return 'gone' end
  local free, _, num_others = room_of_holders(version, wid)
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
  standing[#standing + 1] = settle(ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1')
end
return standing
