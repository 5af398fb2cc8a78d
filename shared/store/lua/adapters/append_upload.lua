#!lua
-- At most 10,012 commands.
-- ARGV: id field piece num_left ttl_ms tenant. Stores one piece of an adapter that a tenant uploads.
-- `num_left` is the number of bytes that the client has announced and not yet sent. Returns 'ok' |
-- 'memory' if too little of Redis' memory would be left for jobs | 'bytes' if the tenant's uploads
-- would take too much of it | 'uploads' if the tenant has too many uploads.
local id, piece, tenant = ARGV[1], ARGV[3], ARGV[6]
local key, account = P .. 'upload:' .. id, P .. 'uploads:' .. tenant
-- Share of `maxmemory` that may be in use. enqueue.lua allows more, so uploads leave room for jobs.
local MAX_MEMORY_USE = 0.7
local TENANT_SHARE = 1 / 2 -- of `maxmemory`
local MAX_UPLOADS = 5000 -- of a tenant
local info = redis.call('INFO', 'memory')
local used, max = tonumber(string.match(info, 'used_memory:(%d+)')), tonumber(string.match(info, 'maxmemory:(%d+)'))

-- Return which of the tenant's limits the upload exceeds, or nil.
local function limit_reached()
  local uploads, bytes = redis.call('ZRANGE', account, 0, -1, 'WITHSCORES'), #piece + ARGV[4]
  for i = 2, #uploads, 2 do bytes = bytes + uploads[i] end
  if max > 0 and bytes > max * TENANT_SHARE then return 'bytes' end
  if #uploads / 2 >= MAX_UPLOADS and not redis.call('ZSCORE', account, id) then return 'uploads' end
end

-- Remove uploads that have expired because their front end died.
local function prune()
  for _, each in ipairs(redis.call('ZRANGE', account, 0, -1)) do
    if redis.call('EXISTS', P .. 'upload:' .. each) == 0 then redis.call('ZREM', account, each) end
  end
end

if max > 0 and used + #piece + ARGV[4] > max * MAX_MEMORY_USE then return 'memory' end
if limit_reached() then prune() end
local reached = limit_reached()
if reached then return reached end
redis.call('HSET', key, ARGV[2], piece, 'tenant', tenant)
if ARGV[2] ~= 'config' then redis.call('HINCRBY', key, 'size', #piece) end
redis.call('PEXPIRE', key, ARGV[5])
redis.call('ZINCRBY', account, #piece, id)
return 'ok'
