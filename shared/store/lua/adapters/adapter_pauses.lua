-- Included after common.lua in the scripts that pause and resume adapters. While the name of an adapter
-- is in `pausedadapters`, `reindex` keeps its versions out of `ready`, so that no worker finds their jobs.

-- Update the indexes of the versions of a name among the members of `ready` or `held`.
local function reindex_name(name, index)
  for _, version in ipairs(redis.call('ZRANGE', P .. index, 0, -1)) do
    if string.match(version, '^(.*)@') == name then
      reindex(version)
      if index == 'held' then wake(version) end
    end
  end
end

-- Let workers take the jobs of a paused adapter again. Return whether it was paused.
local function resume_adapter(name)
  if redis.call('HDEL', P .. 'pausedadapters', name) == 0 then return false end
  reindex_name(name, 'held')
  return true
end
