#!lua flags=allow-oom
-- At most 7 commands, 2 for each API process and 2 for each checkpoint.
-- ARGV: wid num_jobs {id claim_epoch}... num_apis {api payload}... {job payload}...
-- Returns {named jobs that the worker doesn't own, cancelled jobs of the worker}. Nothing is written if
-- the first list has an item. Returns 0, and writes nothing, if the worker was given up.
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
if #sent > 0 then -- the last of these contain every token without a checkpoint
  local key = P .. 'sent:' .. wid
  redis.call('RPUSH', key, table.concat(sent, '\n'))
  redis.call('LTRIM', key, -MAX_SENT, -1)
  redis.call('PEXPIRE', key, CHECKPOINT_TTL_MS)
end
return { {}, cancelled }
