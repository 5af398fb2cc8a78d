#!lua flags=allow-oom
-- At most 30 commands.
-- ARGV: id error. Returns the state after the call: 'cancelled' | 'running' (its worker was told) |
-- the final state that it had reached before | false when there is no such job.
local id, error = ARGV[1], ARGV[2]
local job = read_job(id)
if job.state == 'queued' then
  redis.call('ZREM', P .. 'q:' .. job.version, id)
  reindex(job.version)
  end_unrun(job, 'cancelled', now_ms(), error)
  return 'cancelled'
elseif job.state == 'running' then
  redis.call('HSETNX', P .. 'job:' .. id, 'cancel', error)
  tell_cancelled(job.owner, id)
end
return job.state
