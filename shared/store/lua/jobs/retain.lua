#!lua flags=allow-oom
-- At most 1,600 commands.
-- Removes a page of expired jobs from the indexes. If the kept jobs need more memory than the limit,
-- also deletes the oldest jobs of the tenants whose jobs need most. Returns {number of expired jobs,
-- number of deleted jobs, 1 if another call is needed}.
local MEMORY_SHARE = 1 / 2 -- share of Redis' `maxmemory` that kept jobs may use
local PAGE = 64
local MAX_DELETED = 64
local NUM_CANDIDATES = 4 -- oldest jobs of a tenant. The first one that has ended is deleted.
local now = now_ms()
local expired = redis.call('ZRANGEBYSCORE', P .. 'ended', '-inf', now, 'LIMIT', 0, PAGE)
for _, member in ipairs(expired) do unindex(member) end

local kept, limit, max_memory =
  unpack(redis.call('HMGET', P .. 'cnt', 'kept', 'retain_bytes', 'max_memory'))
if limit and tonumber(max_memory or 0) > 0 then
  limit = math.min(limit, max_memory * MEMORY_SHARE)
end
-- Return an ended job to delete: one of the oldest jobs of the tenant whose jobs need most memory, or,
-- if none of them has ended, the job that expires first. Return nil if there is none.
local function next_to_delete()
  local keeper = redis.call('ZREVRANGE', P .. 'kept', 0, 0)[1]
  local oldest = keeper and redis.call('ZRANGE', P .. 'jobs:' .. keeper, 0, NUM_CANDIDATES - 1) or {}
  for _, id in ipairs(oldest) do
    local job = read_job(id)
    if job.kept then return job end
  end
  local member = redis.call('ZRANGE', P .. 'ended', 0, 0)[1]
  if not member then return nil end
  local job = read_job(unindex(member))
  job.kept = false
  return job
end

-- Forget jobs that processes of an earlier release have removed from all other indexes. This is a random
-- sample, so that every job is checked eventually.
for _, id in ipairs(redis.call('ZRANDMEMBER', P .. 'jobs', NUM_CANDIDATES)) do
  if redis.call('EXISTS', P .. 'job:' .. id) == 0 then redis.call('ZREM', P .. 'jobs', id) end
end

local num_deleted = 0
while limit and tonumber(kept or 0) > tonumber(limit) and num_deleted < MAX_DELETED do
  local job = next_to_delete()
  if not job then
    redis.call('HSET', P .. 'cnt', 'kept', 0)
    redis.call('DEL', P .. 'kept')
    break
  end
  forget_ended(job)
  num_deleted = num_deleted + 1
  kept = redis.call('HGET', P .. 'cnt', 'kept')
end

return { #expired, num_deleted, (#expired == PAGE or num_deleted == MAX_DELETED) and 1 or 0 }
