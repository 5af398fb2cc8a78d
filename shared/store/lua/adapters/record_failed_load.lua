#!lua flags=allow-oom
-- At most 2 commands.
-- ARGV: wid version reason. Records an incident: a worker couldn't load a version. A version has at most
-- one such incident a minute.
local wid, version, reason = ARGV[1], ARGV[2], ARGV[3]
local ONCE_MS = 60000
if redis.call('SET', P .. 'failedload:' .. version, wid, 'NX', 'PX', ONCE_MS) then
  record_incident('adapter_load_failed', 'worker', wid, 'version', version, 'reason', reason)
end
