#!lua flags=allow-oom
-- At most 9 commands.
-- ARGV: id tenant num_bytes created_ms expires_ms purpose is_reserved field value...
-- Records a file whose content is in the file store, and charges its size. May be repeated.
-- Returns 1, or 0 if `is_reserved` is '1' and the file's reservation has ended. Other files are never
-- refused.
local id, tenant, purpose = ARGV[1], ARGV[2], ARGV[6]
local charged, is_deleted = unpack(redis.call('HMGET', P .. 'file:' .. id, 'charged', 'deleted'))
if ARGV[7] == '1' and (not charged or is_deleted) then return 0 end
charge_file(id, tenant, tonumber(ARGV[3]), charged)
redis.call('HDEL', P .. 'file:' .. id, 'deleted')
redis.call('HSET', P .. 'file:' .. id, 'purpose', purpose, unpack(ARGV, 8))
redis.call('ZADD', P .. 'files', ARGV[5], id)
redis.call('ZADD', P .. 'files:' .. tenant, ARGV[4], id)
redis.call('ZADD', P .. 'purpose:' .. purpose .. ':' .. tenant, ARGV[4], id)
return 1
