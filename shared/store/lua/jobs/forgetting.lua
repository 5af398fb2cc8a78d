-- Included after common.lua in the scripts that delete ended jobs.

-- Remove a member of `ended` from the indexes of ended jobs. Return the id of its job.
local function unindex(member)
  local id, num_bytes, tenant = string.match(member, '^(%S+) (%d+) (.*)$')
  if redis.call('ZREM', P .. 'ended', member) == 1 then
    redis.call('HINCRBY', P .. 'cnt', 'kept', -num_bytes)
    if tonumber(redis.call('ZINCRBY', P .. 'kept', -num_bytes, tenant)) <= 0 then
      redis.call('ZREM', P .. 'kept', tenant)
    end
  end
  redis.call('ZREM', P .. 'jobs:' .. tenant, id)
  redis.call('ZREM', P .. 'jobs', id)
  return id
end

-- Delete an ended job with its answer and its idempotency key.
local function forget_ended(job)
  if job.kept then unindex(ended_member(job)) end
  redis.call('DEL', P .. 'job:' .. job.id, P .. 'res:' .. job.id, P .. 'tok:' .. job.id)
  if job.idem then redis.call('DEL', idempotency_key(job.tenant, job.idem)) end
end
