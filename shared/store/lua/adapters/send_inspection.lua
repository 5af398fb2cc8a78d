#!lua
-- At most 4 commands.
-- ARGV: wid id body ttl_ms. Sends an inspection to a worker. Returns 1, or 0 if the worker isn't in
-- the pool.
local wid, id = ARGV[1], ARGV[2]
if not is_registered(wid) then return 0 end
redis.call('SET', P .. 'inspect:' .. id, ARGV[3], 'PX', ARGV[4])
redis.call('RPUSH', P .. 'wake:' .. wid, 'inspect ' .. id)
redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
return 1
