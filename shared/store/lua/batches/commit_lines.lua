#!lua flags=allow-oom
-- At most 1,100 commands.
-- ARGV: id runner num_completed num_failed prompt_tokens completion_tokens cached_tokens
-- reasoning_tokens num_parts part... {line job}...
-- Records that lines of a batch have ended, and the objects with their results. The jobs of the lines
-- have no other client, so they are deleted. A line without a job has ''. Returns 'ok', or 'lost' if the
-- runner has lost its lease or a line was recorded before. In that case, nothing is recorded.
local id, runner, num_parts = ARGV[1], ARGV[2], tonumber(ARGV[9])
local key, done = P .. 'batch:' .. id, P .. 'batchdone:' .. id
if redis.call('GET', P .. 'batchlease:' .. id) ~= runner then return 'lost' end
local first_line = 10 + num_parts
local ENDED = { done = true, failed = true, expired = true, cancelled = true } -- not dead letters
for i = first_line, #ARGV, 2 do
  if redis.call('GETBIT', done, ARGV[i]) == 1 then return 'lost' end
end
for i = first_line, #ARGV, 2 do
  redis.call('SETBIT', done, ARGV[i], 1)
  local job = ARGV[i + 1] ~= '' and read_job(ARGV[i + 1])
  if job and ENDED[job.state] then forget_ended(job) end
end
for i = 10, 9 + num_parts do redis.call('RPUSH', P .. 'batchparts:' .. id, ARGV[i]) end
local counted = { 'num_completed', 'num_failed', 'prompt_tokens', 'completion_tokens', 'cached_tokens',
  'reasoning_tokens' }
for i, field in ipairs(counted) do redis.call('HINCRBY', key, field, ARGV[2 + i]) end
redis.call('HDEL', key, 'deaths', 'failures', 'failure')
return 'ok'
