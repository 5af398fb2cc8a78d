#!lua flags=allow-oom
-- At most 800 commands.
-- Ends jobs that wait for versions which kill their workers, a page at a time. Returns how many.
local PAGE = 32
local now, num_ended = now_ms(), 0

local function end_waiting(version, id)
  redis.call('ZREM', P .. 'q:' .. version, id)
  local job = read_job(id)
  if not job.state then
    count_waiting(nil, -1)
    return
  end
  job.is_ours = true
  end_unrun(job, 'failed', now, error_json('adapter_unavailable', 'adapter ' .. version
    .. ' is quarantined: several of its jobs in a row killed their workers'))
end

local version = redis.call('SRANDMEMBER', P .. 'doomed')
if not version then return 0 end
local ids = redis.call('ZRANGE', P .. 'q:' .. version, 0, PAGE - 1)
for _, id in ipairs(ids) do end_waiting(version, id) end
-- A job of it that still runs may come back to the queue.
if #ids == 0 and redis.call('EXISTS', P .. 'run:' .. version) == 0 then
  redis.call('SREM', P .. 'doomed', version)
end
return #ids
