#!lua flags=allow-oom
-- At most 2,500 commands.
-- Ends a page of overdue jobs: waiting jobs, and running jobs that their workers should have ended.
-- Cancels a page of jobs whose clients stay away. Removes queued ids whose job hashes were deleted.
-- Returns {number of ended jobs, 1 if another call is needed}.
local PAGE = 24
local RUNNING_GRACE_MS = 5000 -- time for workers to end their overdue jobs themselves
local MAX_HEADS = 16 -- a random sample, so that every version is checked eventually
local now, lag = read_clock()
local num_ended = 0

local function end_waiting(job)
  redis.call('ZREM', P .. 'q:' .. job.version, job.id)
  reindex(job.version)
  expire(job, now)
  num_ended = num_ended + 1
end

local function end_running(job)
  if now - lag < due_of(job) + RUNNING_GRACE_MS then
    redis.call('ZADD', P .. 'due', due_of(job) + RUNNING_GRACE_MS, job.id)
    return
  end
  redis.call('ZREM', P .. 'own:' .. job.owner, job.id)
  end_job(job, 'expired', now, 'null', error_json('deadline_exceeded', 'the deadline passed'))
  num_ended = num_ended + 1
end

local overdue = redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now - lag, 'LIMIT', 0, PAGE)
for _, id in ipairs(overdue) do
  local job = read_job(id)
  if job.state == 'queued' then
    end_waiting(job)
  elseif job.state == 'running' then
    end_running(job)
  else -- the job's hash was deleted
    redis.call('ZREM', P .. 'due', id)
    redis.call('HDEL', P .. 'followers', id)
  end
end

local abandoned = redis.call('ZRANGEBYSCORE', P .. 'abandoned', '-inf', now - lag, 'LIMIT', 0, PAGE)
for _, id in ipairs(abandoned) do cancel_abandoned(read_job(id), now) end

-- Remove the first job of a version from its queue if the job's hash was deleted.
local function check_head(version)
  local id = redis.call('ZRANGE', P .. 'q:' .. version, 0, 0)[1]
  if id and redis.call('EXISTS', P .. 'job:' .. id) == 0 then
    redis.call('ZREM', P .. 'q:' .. version, id)
    count_waiting(nil, -1)
    reindex(version)
  end
end

-- Forget the sequences of a job that a process of an earlier release has ended.
local wide = redis.call('HRANDFIELD', P .. 'wide', MAX_HEADS) or {}
for _, id in ipairs(wide) do
  if not redis.call('ZSCORE', P .. 'due', id) then redis.call('HDEL', P .. 'wide', id) end
end

local heads = redis.call('ZRANDMEMBER', P .. 'ready', MAX_HEADS)
for _, version in ipairs(heads) do check_head(version) end
return { num_ended, (#overdue == PAGE or #abandoned == PAGE) and 1 or 0 }
