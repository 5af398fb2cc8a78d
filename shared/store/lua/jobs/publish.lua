#!lua flags=allow-oom
-- At most 7 commands, 2 for each API process and 2 for each checkpoint.
-- ARGV: wid num_jobs {id claim_epoch}... num_apis {api payload}... {job payload}...
-- Publishes events and stores checkpoints. Returns two lists: the jobs in ARGV that the worker
-- doesn't own, and all cancelled jobs of the worker. If the first list isn't empty, nothing is
-- written. If the worker was declared dead, the script writes nothing and returns 0.
local wid, num_jobs = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local fenced, cancelled = standing_of(wid, 3, num_jobs)
if #fenced > 0 then return { fenced, cancelled } end
local now, first = now_ms(), 4 + 2 * num_jobs
local last, sent = first + 2 * ARGV[first - 1], {}
for i = first, last - 1, 2 do
  sent[#sent + 1] = ARGV[i] .. ' ' .. reply(ARGV[i], ARGV[i + 1], wid, now)
end
for i = last, #ARGV, 2 do checkpoint(ARGV[i], ARGV[i + 1]) end
if #sent > 0 then -- the last MAX_SENT entries contain every token without a checkpoint
  local key = P .. 'sent:' .. wid
  redis.call('RPUSH', key, table.concat(sent, '\n'))
  redis.call('LTRIM', key, -MAX_SENT, -1)
  redis.call('PEXPIRE', key, CHECKPOINT_TTL_MS)
end
return { {}, cancelled }
