#!lua flags=allow-oom
-- At most 11 commands.
-- ARGV: name. Makes the name refer to its previous version. The replaced version becomes the last
-- one in the order of rollbacks. Returns {'ok', version} | {'unknown'} | {'none'} if there is no
-- previous version | {'quarantined', version}.
local name = ARGV[1]
local previous, current = P .. 'previous:' .. name, current_of(name)
if not current then return { 'unknown' } end
local version = redis.call('LINDEX', previous, 0)
if not version then return { 'none' } end
if redis.call('HGET', version_key(version), 'state') == 'quarantined' then
  return { 'quarantined', version }
end
registry_changed()
redis.call('LPOP', previous)
redis.call('RPUSH', previous, current)
redis.call('HSET', P .. 'adapter:' .. name, 'version', version, 'by', 'client')
record_incident('adapter_rolled_back', 'version', version)
return { 'ok', version }
