#!lua flags=allow-oom
-- At most 10 commands.
-- ARGV: id. Deletes the prompt, the answer and the record of an ended job. Returns the state of the
-- job, or false if no such job exists. An unfinished job is left as it is.
local job = read_job(ARGV[1])
if not job.state or job.state == 'queued' or job.state == 'running' then return job.state end
local letter = redis.call('HGET', P .. 'job:' .. job.id, 'letter')
if letter then redis.call('XDEL', P .. 'dead', letter) end
forget_ended(job)
return job.state
