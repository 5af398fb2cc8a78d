#!lua flags=allow-oom
-- At most 1,800 commands.
-- Deletes retired versions without waiting or running jobs, and returns them. Workers learn from the
-- reply to their next heartbeat that versions were deleted. Any process may call this script at any
-- time, but it does its work only about once a second.
local EVERY_MS = 900
-- If the registry changes all the time, front ends enqueue a job without a check of the registry's
-- revision, a moment after they have read the version.
local GRACE_MS = 2000 -- longer than front ends remember a version (api/pools/model_cache.py)
local MAX_LOOKS = 128 -- a random sample, so that every version is checked eventually
local now = now_ms()
if redis.call('EXISTS', P .. 'retired') == 0 then return {} end
if math.abs(now - (redis.call('HGET', P .. 'cnt', 'swept_versions') or 0)) < EVERY_MS then return {} end
redis.call('HSET', P .. 'cnt', 'swept_versions', now)

local function is_unused(version, since_ms)
  local is_young = math.abs(now - since_ms) < GRACE_MS
  if is_young and redis.call('HGET', version_key(version), 'state') ~= 'unloaded' then return false end
  return redis.call('EXISTS', P .. 'q:' .. version) == 0 and not is_running(version)
end

local forgotten = {}
local found = redis.call('ZRANDMEMBER', P .. 'retired', MAX_LOOKS, 'WITHSCORES')
for i = 1, #found, 2 do
  if is_unused(found[i], found[i + 1]) then
    forget_version(found[i])
    redis.call('ZREM', P .. 'retired', found[i])
    forgotten[#forgotten + 1] = found[i]
  end
end
if #forgotten > 0 then redis.call('HINCRBY', P .. 'cnt', 'forgotten', #forgotten) end
return forgotten
