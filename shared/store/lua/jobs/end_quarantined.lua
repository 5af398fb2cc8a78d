#!lua flags=allow-oom
-- At most 1,300 commands.
-- Ends a page of the waiting jobs of quarantined versions. `give_back.lua` quarantines versions.
-- Returns {number of ended jobs, 1 if another call is needed}.
local PAGE = 32
local MAX_VERSIONS = 16
local now, num_ended = now_ms(), 0

local function end_waiting(version, id)
  redis.call('ZREM', P .. 'q:' .. version, id)
  num_ended = num_ended + 1
  local job = read_job(id)
  if not job.state then
    count_waiting(nil, -1)
    return
  end
  job.may_retry = true
  end_unrun(job, 'failed', now, error_json('adapter_unavailable', 'adapter ' .. version
    .. ' is quarantined: several of its jobs in a row killed their workers'))
end

local doomed = redis.call('SRANDMEMBER', P .. 'doomed', MAX_VERSIONS)
for _, version in ipairs(doomed) do
  local ids = redis.call('ZRANGE', P .. 'q:' .. version, 0, PAGE - num_ended - 1)
  for _, id in ipairs(ids) do end_waiting(version, id) end
  -- A running job of the version may still return to the queue.
  if #ids == 0 and not is_running(version) then redis.call('SREM', P .. 'doomed', version) end
  if num_ended >= PAGE then break end
end
return { num_ended, num_ended > 0 and 1 or 0 }
