#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id. Deletes the record of a deleted file whose content is gone, and removes its charge from the
-- tenant's account. Files that weren't deleted stay.
local id = ARGV[1]
local key = P .. 'file:' .. id
local tenant, charged, is_deleted = unpack(redis.call('HMGET', key, 'tenant', 'charged', 'deleted'))
if tenant and not is_deleted then return end
if tenant then refund_file(tenant, charged) end
redis.call('DEL', key)
redis.call('ZREM', P .. 'files', id)
