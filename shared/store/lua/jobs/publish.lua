#!lua flags=allow-oom
-- At most 7 commands, 2 for each API process and 2 for each checkpoint.
-- ARGV: wid num_jobs {id epoch}... num_apis {api payload}... {job payload}...
-- Returns {jobs that aren't the worker's, jobs that are cancelled}; if there are any of the first,
-- nothing was written. 0: the worker was given up, nothing was written, and what its jobs have shown
-- is settled.
local wid, num_jobs = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local fenced, cancelled = standing_of(wid, 3, num_jobs)
if #fenced > 0 then return { fenced, cancelled } end
local now, first = now_ms(), 4 + 2 * num_jobs
local behind, sent = first + 2 * ARGV[first - 1], {}
for i = first, behind - 1, 2 do
  sent[#sent + 1] = ARGV[i] .. ' ' .. reply(ARGV[i], ARGV[i + 1], wid, now)
end
for i = behind, #ARGV, 2 do checkpoint(ARGV[i], ARGV[i + 1]) end
if #sent > 0 then -- tokens without a checkpoint stand in the last of these
  local key = P .. 'sent:' .. wid
  redis.call('RPUSH', key, table.concat(sent, '\n'))
  redis.call('LTRIM', key, -MAX_SENT, -1)
  redis.call('PEXPIRE', key, CHECKPOINT_TTL_MS)
end
return { {}, cancelled }
