-- Included after common.lua in the scripts that change files. The account of a tenant,
-- `stored:TENANT`, has the number and the bytes of its files: of those that are being uploaded, those
-- that exist, and those whose content is still to be deleted. The field `charged` of a file's record has
-- the bytes that are charged for the file.

-- Charge `num_bytes` for a file. `before` is the earlier charge for it, or false if it is new.
local function charge_file(id, tenant, num_bytes, before)
  local account = P .. 'stored:' .. tenant
  redis.call('HSET', P .. 'file:' .. id, 'tenant', tenant, 'charged', num_bytes)
  redis.call('HINCRBY', account, 'files', before and 0 or 1)
  redis.call('HINCRBY', account, 'bytes', num_bytes - (before or 0))
end

-- Remove a file and its charge from the tenant's account.
local function refund_file(tenant, charged)
  local account = P .. 'stored:' .. tenant
  redis.call('HINCRBY', account, 'bytes', -charged)
  if redis.call('HINCRBY', account, 'files', -1) == 0 then redis.call('DEL', account) end
end
