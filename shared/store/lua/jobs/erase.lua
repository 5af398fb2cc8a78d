#!lua flags=allow-oom
-- At most 10 commands.
-- ARGV: id. Deletes the prompt, the answer and the record of an ended job. Returns the state of the
-- job, or false if no such job exists. An unfinished job is left as it is.
local LETTER_MS = 1000 -- period in which the letter of a dead job is looked for
local MAX_LETTERS = 16
local job = read_job(ARGV[1])
if not job.state or job.state == 'queued' or job.state == 'running' then return job.state end

-- Return the entry of the job's dead letter, or nil. A worker of the previous release doesn't record
-- it in the job.
local function letter_of_job()
  local letter, ended = unpack(redis.call('HMGET', P .. 'job:' .. job.id, 'letter', 'end'))
  if letter or job.state ~= 'dead' then return letter end
  local entries = redis.call('XRANGE', P .. 'dead', ended, ended + LETTER_MS, 'COUNT', MAX_LETTERS)
  for _, entry in ipairs(entries) do
    if entry[2][1] == 'id' and entry[2][2] == job.id then return entry[1] end
  end
end

local letter = letter_of_job()
if letter then redis.call('XDEL', P .. 'dead', letter) end
forget_ended(job)
return job.state
