#!lua flags=allow-oom
-- At most 8 commands.
-- ARGV: name. The name stands for its previous version again; the present one becomes the last that
-- further rollbacks reach. Returns {'ok', version} | {'unknown'} | {'none'} | {'quarantined', version}.
local name = ARGV[1]
local previous, current = P .. 'previous:' .. name, current_of(name)
if not current then return { 'unknown' } end
local version = redis.call('LINDEX', previous, 0)
if not version then return { 'none' } end
if redis.call('HGET', version_key(version), 'state') == 'quarantined' then
  return { 'quarantined', version }
end
redis.call('LPOP', previous)
redis.call('RPUSH', previous, current)
redis.call('HSET', P .. 'adapter:' .. name, 'version', version, 'by', 'client')
return { 'ok', version }
