#!lua flags=allow-oom
-- At most 61 commands.
-- ARGV: id api grace_ms. Records that no client of the API process waits for the job any more. If no
-- other process has a client of the job, the job is cancelled after `grace_ms`, unless a client comes
-- back or the job keeps running without clients. A process that has died has no clients.
local id, api, grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local job = read_job(id)
if job.state ~= 'queued' and job.state ~= 'running' then return end
local others = without_follower(id, api)
if api == job.out then
  redis.call('HSET', P .. 'job:' .. id, 'gone', 1)
  job.gone = '1'
elseif #others > 0 then
  redis.call('HSET', P .. 'followers', id, table.concat(others, ' '))
else
  redis.call('HDEL', P .. 'followers', id)
end
if not job.gone then others[#others + 1] = job.out end
local now, lag = read_clock()
if job.keep or #living(others, now - lag) > 0 then return end
if grace_ms > 0 then
  redis.call('ZADD', P .. 'abandoned', now - lag + grace_ms, id)
else
  cancel_abandoned(job, now)
end
