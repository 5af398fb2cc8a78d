#!lua
-- At most 6 commands.
-- ARGV: id tenant num_bytes until_ms max_files max_bytes
-- Charges the tenant at least `num_bytes` for a file that is being uploaded. Unless the file is stored or
-- reserved again by `until_ms`, its content is deleted. Returns {'ok'} | {'gone'} if that has begun |
-- {'files', number} or {'bytes', number} if the tenant would exceed a limit; nothing is charged then.
local id, tenant, num_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3])
local charged, is_deleted = unpack(redis.call('HMGET', P .. 'file:' .. id, 'charged', 'deleted'))
if is_deleted then return { 'gone' } end
local files, bytes = unpack(redis.call('HMGET', P .. 'stored:' .. tenant, 'files', 'bytes'))
if not charged and tonumber(files or 0) >= tonumber(ARGV[5]) then return { 'files', files } end
local more = num_bytes - (charged or 0)
if more > 0 and (bytes or 0) + more > tonumber(ARGV[6]) then return { 'bytes', bytes or 0 } end
if more > 0 or not charged then charge_file(id, tenant, num_bytes, charged) end
redis.call('ZADD', P .. 'files', ARGV[4], id)
return { 'ok' }
