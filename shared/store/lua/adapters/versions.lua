-- Included after common.lua in the scripts that change the versions of adapter names.
-- A version is current, previous (kept for rollbacks) or retired. No name refers to a retired
-- version, which is deleted when it has no waiting or running jobs.

-- Return the number of previous versions that a name keeps.
local function num_kept() return tonumber(redis.call('HGET', P .. 'cnt', 'keep_versions') or 4) end

-- Return the current version of the name, or nil if the name isn't registered.
local function current_of(name)
  local version = redis.call('HGET', P .. 'adapter:' .. name, 'version')
  return version and version ~= '' and version or nil
end

-- Retire a version that no name refers to any more. `state` is 'retired' or 'unloaded'.
local function retire(version, state)
  if redis.call('EXISTS', version_key(version)) == 0 then return end
  redis.call('HSET', version_key(version), 'state', state)
  redis.call('ZADD', P .. 'retired', now_ms(), version)
end

-- Make the name refer to the version, whose entry must exist.
local function flip(name, version, by)
  local key, previous, old = P .. 'adapter:' .. name, P .. 'previous:' .. name, current_of(name)
  if not old then
    redis.call('DEL', previous) -- an unloaded name can't be rolled back
  elseif old ~= version then
    redis.call('LREM', previous, 0, version)
    redis.call('LPUSH', previous, old)
    local keep = num_kept()
    while redis.call('LLEN', previous) > keep do
      retire(redis.call('RPOP', previous), 'retired')
    end
  end
  redis.call('HSET', key, 'version', version, 'by', by)
  redis.call('PERSIST', key)
  redis.call('SADD', P .. 'adapters', name)
  redis.call('ZREM', P .. 'retired', version)
end
