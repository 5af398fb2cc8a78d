#!lua flags=allow-oom
-- At most 11 commands, 2 for each API process, 2 for each checkpoint and moment, 20 for each job that other API
-- processes follow as well, and 13 for each job whose API key limits tokens.
-- ARGV: wid num_acknowledged num_jobs {id claim_epoch}... num_apis {api payload}... num_moments
-- {job event}... {job payload used}...
-- Publishes events, stores checkpoints, and adds moments to the timelines of jobs. If `used` isn't 0, it is the number of all tokens that the
-- job has used so far, which are charged to the limits of its API key. Returns {jobs in ARGV that the
-- worker doesn't own, cancelled jobs of the worker, number of the worker's `num_acknowledged` earlier
-- publications that a failover has lost}. If the first list isn't empty, nothing is written. If the
-- worker was declared dead, the script writes nothing and returns 0.
local wid, num_acknowledged, num_jobs = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if not is_worker(wid) then return 0 end
local fenced, cancelled = standing_of(wid, 4, num_jobs)
if #fenced > 0 then return { fenced, cancelled, 0 } end
local now, first = now_ms(), 5 + 2 * num_jobs
local last, sent, payloads, forwarded = first + 2 * ARGV[first - 1], {}, {}, {}
for i = first, last - 1, 2 do
  payloads[ARGV[i]] = ARGV[i + 1]
  reply(ARGV[i], ARGV[i + 1], wid, now)
  sent[#sent + 1] = ARGV[i + 1]
end

-- A key's use may exceed its limit by this share, because requests without `max_tokens` reserve fewer
-- tokens than their answers may have. Beyond it, answers with more tokens than they reserved are ended.
local MAX_EXCESS = 1 / 2
local FIELDS = { 'key', 'books', 'metered', 'held', 'timeline' }

local function is_far_over(account)
  for _, window in ipairs(account) do
    local limit = window.max_tokens
    if limit and window.tokens + account.reserved > limit * (1 + MAX_EXCESS) then return true end
  end
end

local function charge_job(id, used)
  local job = { id = id }
  for i, value in ipairs(redis.call('HMGET', P .. 'job:' .. id, unpack(FIELDS))) do job[FIELDS[i]] = value end
  local account, left = meter(job, used, now, false)
  if not account or left > 0 or not is_far_over(account) then return end
  local error = error_json('rate_limit_exceeded',
    'the answer has more tokens than its request reserved, and the API key has used far more than its '
    .. 'limit; send max_tokens, or try again later')
  if redis.call('HSETNX', P .. 'job:' .. id, 'cancel', error) == 1 then
    note(job, 'cancelling', now, wid, 'rate_limit_exceeded')
  end
  notify_cancelled(wid, id)
end

-- Return whether a timeline has an event since the last claim.
local function has_since_claim(timeline, event)
  local last = string.match(timeline or '', '.* claimed (.*)$') or ''
  return string.find(last, ' ' .. event .. ' ', 1, true) ~= nil
end

-- Add a moment to a job's timeline, unless an earlier call whose reply was lost has added it.
local function add_moment(id, event)
  local job = { id = id, timeline = redis.call('HGET', P .. 'job:' .. id, 'timeline') }
  if not has_since_claim(job.timeline, event) then note(job, event, now, wid) end
end

local stored = last + 1 + 2 * ARGV[last]
for i = last + 1, stored - 1, 2 do add_moment(ARGV[i], ARGV[i + 1]) end
for i = stored, #ARGV, 3 do
  checkpoint(ARGV[i], ARGV[i + 1])
  if ARGV[i + 2] ~= '0' then charge_job(ARGV[i], tonumber(ARGV[i + 2])) end
end

-- Send a job's events to the API processes that were attached to it. The payload also has events of
-- other jobs, which these processes ignore.
local function forward(id, followers)
  local out = redis.call('HGET', P .. 'job:' .. id, 'out')
  for api in string.gmatch(followers, '%S+') do
    local pair = api .. ' ' .. out
    if payloads[out] and not forwarded[pair] then
      reply(api, payloads[out], wid, now)
      forwarded[pair] = true
    end
  end
end

if num_jobs > 0 then
  local ids = {}
  for i = 1, num_jobs do ids[i] = ARGV[3 + 2 * i - 1] end
  for i, followers in ipairs(redis.call('HMGET', P .. 'followers', unpack(ids))) do
    if followers then forward(ids[i], followers) end
  end
end
if #sent > 0 then -- the last MAX_SENT publications contain every token without a checkpoint
  local key = P .. 'sent:' .. wid
  redis.call('RPUSH', key, table.concat(sent, '\n'))
  redis.call('LTRIM', key, -MAX_SENT, -1)
  redis.call('PEXPIRE', key, CHECKPOINT_TTL_MS)
end
local num_known = redis.call('HGET', P .. 'w:' .. wid, 'published')
redis.call('HSET', P .. 'w:' .. wid, 'published', num_acknowledged + 1)
if not num_known then redis.call('PEXPIRE', P .. 'w:' .. wid, WORKER_TTL_MS) end
return { {}, cancelled, math.max(0, num_acknowledged - (num_known or 0)) }
