#!lua flags=allow-oom
-- At most 1,000 commands.
-- Removes a page of expired records of unanswered jobs from the indexes. If the records need more memory
-- than the limit, also deletes the oldest ones of the tenants whose records need most. Returns {number
-- of expired records, number of deleted records, 1 if another call is needed}.
local MEMORY_SHARE = 1 / 8 -- share of Redis' `maxmemory` that the records may use
local DEFAULT_BYTES = 67108864
local PAGE = 64
local now = now_ms()
local days, limit, used, max_memory = unpack(redis.call('HMGET', P .. 'cnt', 'unanswered_days',
  'unanswered_bytes', 'unanswered', 'max_memory'))
limit = tonumber(limit or DEFAULT_BYTES)
if tonumber(max_memory or 0) > 0 then limit = math.min(limit, max_memory * MEMORY_SHARE) end

local num_expired, num_deleted = 0, 0
local oldest = redis.call('ZRANGEBYSCORE', P .. 'unanswered', '-inf',
  now - (days or DEFAULT_UNANSWERED_DAYS) * DAY_MS, 'LIMIT', 0, PAGE)
for _, member in ipairs(oldest) do
  if redis.call('EXISTS', P .. 'record:' .. string.match(member, '^%S+')) == 0 then
    unlist_unanswered(member)
    num_expired = num_expired + 1
  end
end

while tonumber(used or 0) > limit and num_deleted < PAGE do
  local tenant = redis.call('ZREVRANGE', P .. 'unansweredbytes', 0, 0)[1]
  local member = tenant and redis.call('ZRANGE', P .. 'unanswered:' .. tenant, 0, 0)[1]
  if not member then
    redis.call('HSET', P .. 'cnt', 'unanswered', 0)
    redis.call('DEL', P .. 'unansweredbytes')
    break
  end
  redis.call('DEL', P .. 'record:' .. unlist_unanswered(member))
  num_deleted = num_deleted + 1
  used = redis.call('HGET', P .. 'cnt', 'unanswered')
end
if num_deleted > 0 then redis.call('HINCRBY', P .. 'cnt', 'unanswered_dropped', num_deleted) end
return { num_expired, num_deleted, (num_expired == PAGE or num_deleted == PAGE) and 1 or 0 }
