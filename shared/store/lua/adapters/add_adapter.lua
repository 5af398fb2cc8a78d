#!lua flags=allow-oom
-- At most 20 commands.
-- ARGV: how name version created_s field value...
-- how: 'start', a worker was started with the adapter; 'load', a client loads a new name; 'replace', a
-- client loads a name that may be taken. Returns {'ok', current version of the name or ''} |
-- {'exists', version} | {'quarantined', version}.
local how, name, version, created_s = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local key, current = P .. 'adapter:' .. name, current_of(name)
local by, since_s = unpack(redis.call('HMGET', key, 'by', 'created_s'))
local is_quarantined = redis.call('HGET', version_key(version), 'state') == 'quarantined'

-- A client's change outlives restarts of workers, unless a worker has weights that the name never had.
-- Of two workers that register different versions, the one that started later wins.
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
