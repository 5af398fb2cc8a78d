#!lua flags=allow-oom
-- At most 500 commands.
-- ARGV: grace_ms. Finds running jobs whose clients were all connected to API processes that have
-- died. They are cancelled after grace_ms, unless a client comes back or the job keeps running.
-- Returns the number of these jobs. Workers still publish to the reply streams of dead processes,
-- so the newest entries of these streams name the jobs. One call may miss jobs of other workers, and
-- jobs beyond MAX_JOBS. Later calls find them.
local grace_ms = tonumber(ARGV[1])
local MAX_APIS = 64 -- those that died last, since earlier ones hardly have running jobs
local MAX_ENTRIES = 32
local MAX_JOBS = 100
local now, lag = read_clock()
local ids, is_known, num_abandoned = {}, {}, 0

-- Tokens can't imitate the pattern, because quotes in JSON strings are escaped.
local function collect(payload)
  for id in string.gmatch(payload, '"job":"([^"]+)"') do
    if not is_known[id] then ids[#ids + 1], is_known[id] = id, true end
  end
end

local function has_client(job)
  local apis = job.gone and {} or { job.out }
  for api in string.gmatch(redis.call('HGET', P .. 'followers', job.id) or '', '%S+') do
    apis[#apis + 1] = api
  end
  return #living(apis, now - lag) > 0
end

local dead = redis.call('ZRANGE', P .. 'apis', now - lag - API_DEAD_MS, '-inf', 'BYSCORE', 'REV',
  'LIMIT', 0, MAX_APIS)
for _, api in ipairs(dead) do
  for _, entry in ipairs(redis.call('XREVRANGE', P .. 'out:' .. api, '+', '-', 'COUNT', MAX_ENTRIES)) do
    collect(entry[2][2])
  end
end
for i = 1, math.min(#ids, MAX_JOBS) do -- from an arbitrary place on, since many may have clients
  local id = ids[(now + i) % #ids + 1]
  local job = read_job(id)
  if job.state == 'running' and not job.keep and not job.cancel and not has_client(job) then
    -- A job that is already abandoned keeps its time.
    num_abandoned = num_abandoned + redis.call('ZADD', P .. 'abandoned', 'NX', now - lag + grace_ms, id)
  end
end
return num_abandoned
