#!lua flags=allow-oom
-- At most 75 commands, and 15 for each version with waiting jobs if the adapter is paused.
-- ARGV: name by. Stops new jobs for all versions of the name. Waiting and running jobs end normally.
-- Returns 1 if the name was registered, 0 if it was already unloaded, or -1 if it is unknown.
local name = ARGV[1]
local key, previous, current = P .. 'adapter:' .. name, P .. 'previous:' .. name, current_of(name)
local REMEMBERED_MS = 3600000
if not current then return redis.call('EXISTS', key) - 1 end
registry_changed()
drop_candidate(name)
redis.call('HDEL', P .. 'pins', name)
resume_adapter(name)
redis.call('LPUSH', previous, current)
for _, version in ipairs(redis.call('LRANGE', previous, 0, -1)) do retire(version, 'unloaded') end
redis.call('HSET', key, 'version', '', 'by', 'client')
redis.call('SREM', P .. 'adapters', name)
record_change('unloaded', name, ARGV[2], current, '')
record_incident('adapter_unloaded', 'version', current)
if not redis.call('HGET', key, 'at_start') then
  redis.call('PEXPIRE', key, REMEMBERED_MS)
  redis.call('PEXPIRE', previous, REMEMBERED_MS)
end
return 1
