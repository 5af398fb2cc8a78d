-- Included after common.lua in the scripts that read or delete records of unanswered jobs.

-- Remove a record from the indexes, and return the id of its job.
local function unlist_unanswered(member)
  local id, num_bytes, tenant = string.match(member, '^(%S+)\t.*\t(%d+)\t(.*)$')
  redis.call('ZREM', P .. 'unanswered:' .. tenant, member)
  if redis.call('ZREM', P .. 'unanswered', member) == 1 then count_unanswered(tenant, -num_bytes) end
  return id
end

-- Return the record of a job, or nil.
local function read_record(id)
  local found = redis.call('GET', P .. 'record:' .. id)
  return found and cjson.decode(found) or nil
end
