#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id. Notes that the content of a deleted file is gone, and gives back what its tenant was
-- charged with. Files that aren't deleted stay.
local id = ARGV[1]
local key = P .. 'file:' .. id
local tenant, charged, is_deleted = unpack(redis.call('HMGET', key, 'tenant', 'charged', 'deleted'))
if tenant and not is_deleted then return end
if tenant then refund_file(tenant, charged) end
redis.call('DEL', key)
redis.call('ZREM', P .. 'files', id)
