#!lua flags=allow-oom
-- At most 2,000 commands.
-- ARGV: version new_epoch field value... Sets the base model. If live workers serve another version,
-- returns {that version, ''}. Otherwise returns {'', epoch of the registry}, or {'', ''} if another call
-- is needed: a change of the base model deletes all adapters, one page per call. Workers register
-- their adapters again if they registered them in another epoch.
local PAGE = 32
local version = redis.call('HGET', P .. 'base', 'version')
if version and version ~= ARGV[1] and redis.call('EXISTS', P .. 'workers') == 1 then
  return { version, '' }
end
registry_changed()
local function forget(versions)
  for _, each in ipairs(versions) do forget_version(each) end
end
-- Delete a page of the earlier base model's adapters. Return whether another page may follow.
-- Workers register their own adapters after this script.
local function forget_page()
  local names = redis.call('SRANDMEMBER', P .. 'adapters', PAGE)
  for _, name in ipairs(names) do
    drop_candidate(name) -- retired versions are deleted below
    forget({ current_of(name), unpack(redis.call('LRANGE', P .. 'previous:' .. name, 0, -1)) })
    redis.call('DEL', P .. 'adapter:' .. name, P .. 'previous:' .. name)
    redis.call('HDEL', P .. 'pins', name)
    redis.call('SREM', P .. 'adapters', name)
  end
  local retired = redis.call('ZRANGE', P .. 'retired', 0, PAGE - 1)
  forget(retired)
  if #retired > 0 then redis.call('ZREM', P .. 'retired', unpack(retired)) end
  return #names == PAGE or #retired == PAGE
end
if version and version ~= ARGV[1] then
  if forget_page() then return { '', '' } end
  for _, name in ipairs(redis.call('HKEYS', P .. 'pausedadapters')) do resume_adapter(name) end
  redis.call('DEL', P .. 'base')
end
redis.call('HSET', P .. 'base', unpack(ARGV, 3))
redis.call('HSETNX', P .. 'base', 'epoch', ARGV[2])
return { '', redis.call('HGET', P .. 'base', 'epoch') }
