#!lua flags=allow-oom
-- At most 20 commands.
-- ARGV: id. Deletes the prompt, the answer and all records of an ended job. Returns the state of the
-- job, or false if no such job exists. An unfinished job is left as it is.
local job = read_job(ARGV[1])
if job.state == 'queued' or job.state == 'running' then return job.state end
local record = read_record(job.id)
if record then
  unlist_unanswered(unanswered_member(record))
  redis.call('DEL', P .. 'record:' .. job.id)
end
local letter = record and record.letter or redis.call('HGET', P .. 'job:' .. job.id, 'letter')
if letter then redis.call('XDEL', P .. 'dead', letter) end
if job.state then forget_ended(job) end
return job.state or (record and record.state)
