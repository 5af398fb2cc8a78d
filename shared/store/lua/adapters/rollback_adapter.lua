#!lua flags=allow-oom
-- At most 20 commands.
-- ARGV: name version by. Makes the name refer to a previous version; '' means the first one in the order
-- of rollbacks. In the latter case, the replaced version becomes the last one in
-- that order, so that repeated calls reach every version. Otherwise, it becomes the first one, as if
-- the version had been loaded again. Returns {'ok', version} | {'unknown'} | {'none'} if there is no
-- previous version | {'not_kept', current, previous...} | {'quarantined', version}.
local name, wanted, by = unpack(ARGV)
local previous, current = P .. 'previous:' .. name, current_of(name)
if not current then return { 'unknown' } end
if wanted == current then return { 'ok', current } end
local kept = redis.call('LRANGE', previous, 0, -1)
local version = wanted ~= '' and wanted or kept[1]
if not version then return { 'none' } end
if not redis.call('LPOS', previous, version) then return { 'not_kept', current, unpack(kept) } end
if redis.call('HGET', version_key(version), 'state') == 'quarantined' then
  return { 'quarantined', version }
end
registry_changed()
redis.call('LREM', previous, 0, version)
redis.call(wanted == '' and 'RPUSH' or 'LPUSH', previous, current)
redis.call('HSET', P .. 'adapter:' .. name, 'version', version, 'by', 'client')
if candidate_of(name) == version then clear_candidate(name) end
if candidate_of(name) then start_comparison(version) end
record_change('rolled_back', name, by, current, version)
record_incident('adapter_rolled_back', 'version', version)
return { 'ok', version }
