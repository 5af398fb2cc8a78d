#!lua flags=allow-oom
-- At most 20 commands.
-- ARGV: how name version created_s field value...
-- `how` is 'start' if a worker was started with the adapter, 'load' if a client loads it under a
-- new name, or 'replace' if a client loads it under a name that may be taken. Returns {'ok',
-- current version of the name or ''} | {'exists', version} | {'quarantined', version}.
local how, name, version, created_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key, current = P .. 'adapter:' .. name, current_of(name)
local by, since_s = unpack(redis.call('HMGET', key, 'by', 'created_s'))
local is_quarantined = redis.call('HGET', version_key(version), 'state') == 'quarantined'

-- Return whether a worker's registration must not change the name. A change by a client outlives
-- restarts of workers, unless a worker has weights that the name never had. If two workers register
-- different versions, the worker that started later wins.
local function is_outdated()
  if by == 'client' then
    return version == current or redis.call('LPOS', P .. 'previous:' .. name, version) ~= false
  end
  return since_s and tonumber(since_s) > created_s
end

if how == 'start' then
  redis.call('HSET', key, 'at_start', 1)
  redis.call('PERSIST', key)
  redis.call('PERSIST', P .. 'previous:' .. name)
  if is_outdated() then return { 'ok', current or '' } end
elseif how == 'load' and current then
  return { 'exists', current }
elseif is_quarantined then
  return { 'quarantined', version }
end
redis.call('HSET', version_key(version), unpack(ARGV, 5))
if is_quarantined then redis.call('HSET', version_key(version), 'state', 'quarantined') end
flip(name, version, how == 'start' and 'start' or 'client')
redis.call('HSET', key, 'created_s', created_s)
return { 'ok', version }
