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

-- Return the candidate version of the name, or nil.
local function candidate_of(name)
  return redis.call('HGET', P .. 'adapter:' .. name, 'candidate') or nil
end

-- Let a comparison with another version count the version's requests from now on. Its entry keeps its
-- present counters, in the order of COUNTERS in adapter_views.py.
local function start_comparison(version)
  local counts = redis.call('HMGET', version_key(version), 'requests', 'tokens', 'failed', 'answered',
    'answer_ms')
  for i, count in ipairs(counts) do counts[i] = count or 0 end
  redis.call('HSET', version_key(version), 'counts_before', table.concat(counts, ' '))
end

-- Retire a version that no name refers to any more. `state` is 'retired' or 'unloaded'.
local function retire(version, state)
  if redis.call('EXISTS', version_key(version)) == 0 then return end
  redis.call('HSET', version_key(version), 'state', state)
  redis.call('ZADD', P .. 'retired', now_ms(), version)
end

-- Clear the candidate of the name, and delete the comparison of its answers.
local function clear_candidate(name)
  local version = candidate_of(name)
  if not version then return end
  redis.call('HDEL', P .. 'adapter:' .. name, 'candidate', 'candidate_mode', 'candidate_percent',
    'candidate_ms')
  redis.call('DEL', P .. 'compared:' .. version, P .. 'differing:' .. version)
end

-- End the trial of the candidate of the name, if it has one.
local function drop_candidate(name)
  local version = candidate_of(name)
  clear_candidate(name)
  if version and not redis.call('LPOS', P .. 'previous:' .. name, version) then
    retire(version, 'retired')
  end
end

-- Return the candidate of the name with its mode and share as text, or '' if there is none.
local function describe_candidate(name)
  local version, mode, percent = unpack(redis.call('HMGET', P .. 'adapter:' .. name, 'candidate',
    'candidate_mode', 'candidate_percent'))
  return version and version .. ' ' .. mode .. ' ' .. percent .. '%' or ''
end

-- Make the version the candidate of the name, in place of another one.
local function set_candidate(name, version, mode, percent, by)
  local key, before = P .. 'adapter:' .. name, describe_candidate(name)
  if candidate_of(name) ~= version then
    drop_candidate(name)
    redis.call('HSET', key, 'candidate', version, 'candidate_ms', now_ms())
    redis.call('ZREM', P .. 'retired', version)
    start_comparison(version)
    start_comparison(current_of(name))
  end
  redis.call('HSET', key, 'candidate_mode', mode, 'candidate_percent', percent)
  record_incident('adapter_candidate_set', 'version', version, 'reason',
    mode .. ' of ' .. percent .. ' % of the requests')
  record_change('candidate_set', name, by, before, describe_candidate(name))
end

-- Make the name refer to the version, whose entry must exist.
local function flip(name, version, by)
  local key, previous, old = P .. 'adapter:' .. name, P .. 'previous:' .. name, current_of(name)
  if candidate_of(name) == version then clear_candidate(name) end
  if not old then
    redis.call('DEL', previous) -- an unloaded name can't be rolled back
  elseif old ~= version then
    redis.call('LREM', previous, 0, version)
    redis.call('LPUSH', previous, old)
    if candidate_of(name) then start_comparison(version) end
    local keep = num_kept()
    while redis.call('LLEN', previous) > keep do
      local oldest = redis.call('RPOP', previous)
      if oldest ~= candidate_of(name) then retire(oldest, 'retired') end
    end
  end
  redis.call('HSET', key, 'version', version, 'by', by)
  redis.call('PERSIST', key)
  redis.call('SADD', P .. 'adapters', name)
  redis.call('ZREM', P .. 'retired', version)
end
