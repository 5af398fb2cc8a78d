-- Put behind common.lua in the scripts that change what adapter names stand for.
-- A version is current, or previous (kept for a rollback), or retired: then no name refers to it, and
-- it goes when no job does.

local MAX_PREVIOUS = 4

-- The version that the name has now; nil when there is no such adapter.
local function current_of(name)
  local version = redis.call('HGET', P .. 'adapter:' .. name, 'version')
  return version and version ~= '' and version or nil
end

-- Nobody's name any more: `state` says whether new jobs may still come in for it.
local function retire(version, state)
  if redis.call('EXISTS', version_key(version)) == 0 then return end
  redis.call('HSET', version_key(version), 'state', state)
  redis.call('ZADD', P .. 'retired', now_ms(), version)
end

-- Let the name stand for the version, which has an entry, from now on.
local function flip(name, version, by)
  local key, previous, old = P .. 'adapter:' .. name, P .. 'previous:' .. name, current_of(name)
  if not old then
    redis.call('DEL', previous) -- of a name that was unloaded: nothing to roll back to
  elseif old ~= version then
    redis.call('LREM', previous, 0, version)
    redis.call('LPUSH', previous, old)
    while redis.call('LLEN', previous) > MAX_PREVIOUS do
      retire(redis.call('RPOP', previous), 'retired')
    end
  end
  redis.call('HSET', key, 'version', version, 'by', by)
  redis.call('PERSIST', key)
  redis.call('SADD', P .. 'adapters', name)
  redis.call('ZREM', P .. 'retired', version)
end
