#!lua flags=allow-oom
-- At most 75 commands.
-- ARGV: name how by expected. Ends the trial of a name's candidate: `how` is 'promote' to make it the
-- current version, or 'drop'. `expected` is the version that must be the candidate, or ''. Returns
-- {'ok', version} | {'unknown'} | {'none'} if there is no candidate | {'other', version} if another
-- version is the candidate | {'quarantined', version}.
local name, how, by, expected = unpack(ARGV)
local current, candidate = current_of(name), candidate_of(name)
if not current then return { 'unknown' } end
if not candidate then return { 'none' } end
if expected ~= '' and expected ~= candidate then return { 'other', candidate } end
if how == 'promote' and redis.call('HGET', version_key(candidate), 'state') == 'quarantined' then
  return { 'quarantined', candidate }
end
registry_changed()
if how == 'promote' then
  flip(name, candidate, 'client')
  record_incident('adapter_replaced', 'version', candidate)
  record_change('candidate_promoted', name, by, current, candidate)
else
  drop_candidate(name)
  record_incident('adapter_candidate_dropped', 'version', candidate)
  record_change('candidate_dropped', name, by, candidate, '')
end
return { 'ok', candidate }
