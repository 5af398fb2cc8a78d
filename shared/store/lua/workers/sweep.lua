#!lua flags=allow-oom
-- At most 1,500 commands.
-- Forgets retired versions that no job waits or runs for; workers hear of it by their next beats.
-- Anybody may call it; it looks once a second. Returns the forgotten versions.
local EVERY_MS = 900
-- A request may be between its admission and the queue when its version is superseded.
local GRACE_MS = 10000
local MAX_LOOKS = 128 -- drawn by lot, so that all get their turn
local now = now_ms()
if redis.call('EXISTS', P .. 'retired') == 0 then return {} end
if math.abs(now - (redis.call('HGET', P .. 'cnt', 'swept_versions') or 0)) < EVERY_MS then return {} end
redis.call('HSET', P .. 'cnt', 'swept_versions', now)

local function may_go(version, since_ms)
  local is_young = math.abs(now - since_ms) < GRACE_MS
  if is_young and redis.call('HGET', version_key(version), 'state') ~= 'unloaded' then return false end
  return redis.call('EXISTS', P .. 'q:' .. version) == 0 and not is_running(version)
end

local forgotten = {}
local found = redis.call('ZRANDMEMBER', P .. 'retired', MAX_LOOKS, 'WITHSCORES')
for i = 1, #found, 2 do
  if may_go(found[i], found[i + 1]) then
    redis.call('DEL', version_key(found[i]))
    redis.call('ZREM', P .. 'retired', found[i])
    forgotten[#forgotten + 1] = found[i]
  end
end
if #forgotten > 0 then redis.call('HINCRBY', P .. 'cnt', 'forgotten', #forgotten) end
return forgotten
