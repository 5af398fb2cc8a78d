#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id field... Deletes the description of a file or of an upload, so that it can't be stored any
-- more. Its content can then be deleted. `fields` are all fields that store_file.lua was given.
local id = ARGV[1]
local key = P .. 'file:' .. id
local tenant, purpose = unpack(redis.call('HMGET', key, 'tenant', 'purpose'))
if not tenant then return end
redis.call('HSET', key, 'deleted', 1)
redis.call('ZADD', P .. 'files', 0, id)
if not purpose then return end
redis.call('HDEL', key, 'purpose', unpack(ARGV, 2))
redis.call('ZREM', P .. 'files:' .. tenant, id)
redis.call('ZREM', P .. 'purpose:' .. purpose .. ':' .. tenant, id)
