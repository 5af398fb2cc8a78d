#!lua flags=allow-oom
-- At most 30 commands.
-- ARGV: name version mode percent by. Makes a version the candidate of a name, or changes the mode and
-- share of its candidate. `version` is a previous version or the candidate; '' means the candidate.
-- Returns {'ok', version} | {'unknown'} | {'none'} if there is no candidate | {'current'} |
-- {'not_kept', current, previous...} | {'quarantined', version}.
local name, version, mode, percent, by = unpack(ARGV)
local current, candidate = current_of(name), candidate_of(name)
if not current then return { 'unknown' } end
if version == '' then version = candidate end
if not version then return { 'none' } end
if version == current then return { 'current' } end
if version ~= candidate and not redis.call('LPOS', P .. 'previous:' .. name, version) then
  return { 'not_kept', current, unpack(redis.call('LRANGE', P .. 'previous:' .. name, 0, -1)) }
end
if redis.call('HGET', version_key(version), 'state') == 'quarantined' then
  return { 'quarantined', version }
end
registry_changed()
set_candidate(name, version, mode, percent, by)
return { 'ok', version }
