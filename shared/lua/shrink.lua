#!lua flags=allow-oom
-- ARGV: wid steal_ms {version running is_due}... Takes the worker out of the holders of due copies
-- that are surplus. Returns how each stands: 'needed' | 'surplus' | 'gone' | 'sole'; 0 when the worker
-- was given up.
local wid, steal_ms = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local now = now_ms()

local function settle(version, running, is_due)
  local free, num_others, is_held = 0, 0, false
  for _, holder in ipairs(redis.call('SMEMBERS', P .. 'on:' .. version)) do
    if holder == wid then
      is_held = true
    else
      free, num_others = free + load_of(holder).free, num_others + 1
    end
  end
  if not is_held then return 'gone' end -- the reply of the call that did it was lost
  if num_others == 0 then return 'sole' end
  local waiting = redis.call('ZCARD', P .. 'q:' .. version)
  if waited_ms(version, now) > steal_ms or not is_surplus(waiting, running, free) then
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
