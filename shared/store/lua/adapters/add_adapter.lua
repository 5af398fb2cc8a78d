#!lua flags=allow-oom
-- At most 100 commands.
-- ARGV: how name version created_s keep source by mode percent field value...
-- `how` is 'start' if a worker was started with the adapter, 'load' if a client loads it under a
-- new name, 'replace' if a client loads it under a name that may be taken, or 'candidate' if a client
-- wants to try it out next to the current version. `keep` is the number of previous versions to keep,
-- or '' for the number that was set last. `by` is the author for the audit log. `mode` and `percent`
-- are those of a candidate. If `percent` is '', a new candidate takes no requests yet, and the present
-- one keeps its share. Returns {'ok', current version of the name or ''} | {'exists', version} |
-- {'quarantined', version} | {'expired', version} if the uploaded files of the version are gone |
-- {'unknown', ''} if the name of a candidate isn't registered.
local how, name, version, created_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local keep, source, by_whom, mode, percent = tonumber(ARGV[5]), unpack(ARGV, 6, 9)
local key, current = P .. 'adapter:' .. name, current_of(name)
local by, since_s = unpack(redis.call('HMGET', key, 'by', 'created_s'))
local state, source_before = unpack(redis.call('HMGET', version_key(version), 'state', 'source'))
local is_quarantined = state == 'quarantined'

-- Return whether a worker's registration must not change the name. A change by a client outlives
-- restarts of workers, unless a worker has weights that the name never had. If two workers register
-- different versions, the worker that started later wins.
local function is_outdated()
  if by == 'client' then
    return version == current or version == candidate_of(name)
      or redis.call('LPOS', P .. 'previous:' .. name, version) ~= false
  end
  return since_s and tonumber(since_s) > created_s
end

if how == 'start' then
  redis.call('HSET', key, 'at_start', version)
  redis.call('PERSIST', key)
  redis.call('PERSIST', P .. 'previous:' .. name)
  if is_outdated() then return { 'ok', current or '' } end
elseif how == 'load' and current then
  return { 'exists', current }
elseif how == 'candidate' and not current then
  return { 'unknown', '' }
elseif how == 'candidate' and current == version then
  return { 'exists', current }
elseif is_quarantined then
  return { 'quarantined', version }
elseif is_upload(source) and redis.call('EXISTS', P .. source) == 0 then
  return { 'expired', version }
end
registry_changed()
redis.call('HSET', version_key(version), unpack(ARGV, 10))
local kinds, rank = unpack(redis.call('HMGET', version_key(version), 'kinds', 'rank'))
redis.call('HSET', P .. 'needs', version, kinds .. ';;' .. rank)
keep_upload(version, source_before, source)
if keep then redis.call('HSET', P .. 'cnt', 'keep_versions', keep) end
if is_quarantined then redis.call('HSET', version_key(version), 'state', 'quarantined') end
if how == 'candidate' then
  if percent ~= '' then
    set_candidate(name, version, mode, percent, by_whom)
  elseif candidate_of(name) ~= version then
    set_candidate(name, version, mode, '0', by_whom)
  end
  return { 'ok', version }
end
flip(name, version, how == 'start' and 'start' or 'client')
redis.call('HSET', key, 'created_s', created_s)
if current ~= version then record_change('loaded', name, by_whom, current, version) end
if current and current ~= version then
  record_incident('adapter_replaced', 'version', version)
elseif not current and how ~= 'start' then -- a worker's own adapters come with the worker
  record_incident('adapter_loaded', 'version', version)
end
return { 'ok', version }
