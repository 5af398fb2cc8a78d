-- Included after common.lua in the scripts that cancel jobs.

-- Cancel a job: end a waiting job, or ask the worker of a running job to stop it. An ended job stays as
-- it is. Returns the state of the job after the call.
local function cancel_job(job, error, now)
  if job.state == 'queued' then
    redis.call('ZREM', P .. 'q:' .. job.version, job.id)
    reindex(job.version)
    end_unrun(job, 'cancelled', now, error)
    return 'cancelled'
  elseif job.state == 'running' then
    if redis.call('HSETNX', P .. 'job:' .. job.id, 'cancel', error) == 1 then
      note(job, 'cancelling', now, job.owner, cjson.decode(error).code)
    end
    notify_cancelled(job.owner, job.id)
  end
  return job.state
end

-- Cancel a job whose clients stay away. A later request with the job's idempotency key starts a new
-- job.
local function cancel_abandoned(job, now)
  redis.call('ZREM', P .. 'abandoned', job.id)
  if job.state ~= 'queued' and job.state ~= 'running' then return end
  free_idempotency_key(job)
  cancel_job(job, error_json('cancelled', 'the client closed its connection'), now)
end
