#!lua flags=allow-oom
-- At most 900 commands.
-- Removes a page of expired jobs from the indexes. If the kept answers exceed the limit in bytes,
-- also deletes those that expire first. Returns {number of expired jobs, number of deleted jobs,
-- 1 if another call is needed}.
local PAGE = 64
local MAX_DELETED = 64
local now = now_ms()
local expired = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now, 'LIMIT', 0, PAGE)
for _, member in ipairs(expired) do unindex(member) end

local kept, limit = unpack(redis.call('HMGET', P .. 'cnt', 'kept', 'retain_bytes'))
local num_deleted = 0
while limit and tonumber(kept or 0) > tonumber(limit) and num_deleted < MAX_DELETED do
  local member = redis.call('ZRANGE', P .. 'ended', 0, 0)[1]
  if not member then
    redis.call('HSET', P .. 'cnt', 'kept', 0)
    break
  end
  local job = read_job(unindex(member))
  job.kept = false
  forget_ended(job)
  num_deleted = num_deleted + 1
  kept = redis.call('HGET', P .. 'cnt', 'kept')
end
return { #expired, num_deleted, (#expired == PAGE or num_deleted == MAX_DELETED) and 1 or 0 }
