#!lua flags=allow-oom
-- At most 30 commands.
-- ARGV: id error. Cancels a job. Returns the state after the call: 'cancelled' | 'running' if its
-- worker was notified | the final state that the job already had | false if no such job exists.
local id, error = ARGV[1], ARGV[2]
local job = read_job(id)
if job.state == 'queued' then
  redis.call('ZREM', P .. 'q:' .. job.version, id)
  reindex(job.version)
  end_unrun(job, 'cancelled', now_ms(), error)
  return 'cancelled'
elseif job.state == 'running' then
  redis.call('HSETNX', P .. 'job:' .. id, 'cancel', error)
  notify_cancelled(job.owner, id)
end
return job.state
