#!lua flags=allow-oom
-- At most 3 commands.
-- ARGV: id ttl_ms. Takes and confirms an inspection. Returns its body, or false if it was withdrawn
-- or already taken.
local id = ARGV[1]
local body = redis.call('GETDEL', P .. 'inspect:' .. id)
if not body then return false end
redis.call('RPUSH', P .. 'found:' .. id, 'taken')
redis.call('PEXPIRE', P .. 'found:' .. id, ARGV[2])
return body
