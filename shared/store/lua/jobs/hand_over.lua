#!lua flags=allow-oom
-- At most 85 commands for each job; callers send 16 at a time.
-- ARGV: wid {id tokens}... Takes jobs from a worker that left or was declared dead. `tokens` are
-- the job's published tokens that aren't in a checkpoint, or ''. Returns {number of requeued jobs,
-- number of ended jobs}, or false if the worker is in the pool or its handover is complete.
local wid, now = ARGV[1], now_ms()
local num_owned = redis.call('ZSCORE', P .. 'lost', wid) -- -1 if the worker left
if not num_owned or is_registered(wid) then return false end
local death = tonumber(num_owned) >= 0 and { was_alone = tonumber(num_owned) == 1 } or nil
local reason = death and 'worker_lost' or 'worker_left'
local num = { requeued = 0, ended = 0 }
for i = 2, #ARGV, 2 do
  local outcome = give_back(wid, ARGV[i], ARGV[i + 1], death, now, reason)
  if outcome then num[outcome] = num[outcome] + 1 end
end
return { num.requeued, num.ended }
