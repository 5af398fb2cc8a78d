#!lua flags=allow-oom
-- Forgets retired versions that no job waits or runs for, and tells the workers to let go of them.
-- Anybody may call it; it looks once a second. Returns the forgotten versions.
local EVERY_MS = 900
-- A request may be between its admission and the queue when its version is superseded.
local GRACE_MS = 10000
local MAX_LOOKS = 256 -- drawn by lot, so that all get their turn
local now = now_ms()
if redis.call('EXISTS', P .. 'retired') == 0 then return {} end
if not redis.call('SET', P .. 'swept', 1, 'NX', 'PX', EVERY_MS) then return {} end

local running -- versions; nil until it is needed
local function runs(version)
  if not running then
    running = {}
    for _, wid in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
      for _, id in ipairs(redis.call('ZRANGE', P .. 'own:' .. wid, 0, -1)) do
        running[redis.call('HGET', P .. 'job:' .. id, 'version') or ''] = true
      end
    end
  end
  return running[version]
end

local function may_go(version, since_ms)
  local is_young = now - tonumber(since_ms) < GRACE_MS
  if is_young and redis.call('HGET', version_key(version), 'state') ~= 'unloaded' then return false end
  return redis.call('EXISTS', P .. 'q:' .. version) == 0 and not runs(version)
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
if #forgotten > 0 then
  for _, wid in ipairs(redis.call('ZRANGE', P .. 'workers', 0, -1)) do
    redis.call('RPUSH', P .. 'wake:' .. wid, 'tidy')
    redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
  end
end
return forgotten
