#!lua flags=allow-oom
-- At most 3,000 commands.
-- ARGV: wid claim_epoch sequences tokens steal_ms max_cold load_ms idle_sequences idle_tokens class
-- num_more more... num_less less... refused...
-- Takes jobs for a worker, which holds the versions in has:<wid> and `more` except those in `less`.
-- A worker of a class other than '' gets only jobs that its class serves. `sequences` and `tokens` are
-- its capacity for jobs that aren't preemptible. Such jobs may take the places of preemptible ones.
-- Returns {'lost'} if the worker isn't in the pool, else {'ok', ms until the next steal or -1,
-- 1 if the worker is parked, {id, try, suspect, body, ms to the deadline, ms in the queue, smallest
-- limit of tokens of the API key or 0}...}. A worker is parked if it has capacity but nothing is left
-- to take.
-- Below, versions that the worker holds are called own, and other versions foreign. A source is a cursor
-- over the waiting jobs of one version.
local wid, epoch = ARGV[1], ARGV[2]
local max_cold = tonumber(ARGV[6])
local budget = { sequences = tonumber(ARGV[3]), tokens = tonumber(ARGV[4]), cold = max_cold }
local steal_ms, load_ms, own_class = tonumber(ARGV[5]), tonumber(ARGV[7]), ARGV[10]
local idle = { sequences = tonumber(ARGV[8]), tokens = tonumber(ARGV[9]) } -- for preemptible jobs
local OVERDUE = 8 -- foreign jobs that wait longer than this many times steal_ms go before own jobs
local LOAD_SHARE = 1.5 -- steal_ms is this many times the measured load time
local PAGE = 64
local MAX_PAGES = 4
local NAMES_PAGE = 512 -- versions looked up in one command
local SPARE_SOURCES = 16 -- own versions in addition to `sequences`, since some jobs may be skipped
local MAX_TAKEN = 64
local MAX_EXAMINED = 128
local MAX_EXPIRED = 32
local MAX_SKIPPED = 32 -- large jobs at the front of a queue
local MAX_LOOKS = 32 -- foreign versions whose waiting time is read
local MAX_SCANS = 16 -- pages in which a limited worker looks for versions, or for jobs of one version
local MAX_ALL_SCANS = 128 -- pages of jobs in one claim
local RESERVED_MS = 5000 -- a worker renews its reservation with each claim

if not is_worker(wid) then return { 'lost' } end
local now, lag = read_clock()
local num_owned = redis.call('ZCARD', P .. 'own:' .. wid)
local taken, touched, num_taken_of = {}, {}, {} -- num_taken_of has the number of taken jobs by tenant
local virtual_time = {} -- new virtual times, by field of `cnt`
local examined, num_expired, next_steal = 0, 0, -1
-- True if no further job may be taken: the pool or the worker is paused, or a job must not be overtaken or must run
-- alone.
local is_closed = budget.sequences <= 0 or redis.call('EXISTS', P .. 'paused') == 1
  or redis.call('HEXISTS', P .. 'w:' .. wid, 'mode') == 1
-- True if a preemptible job was found that must wait. All jobs behind it are preemptible, too.
local only_waiting_follow = false

local next_arg = 11
local function read_set()
  local set, num = {}, tonumber(ARGV[next_arg])
  for i = next_arg + 1, next_arg + num do set[ARGV[i]] = true end
  next_arg = next_arg + num + 1
  return set, num
end

local more, num_more = read_set()
local less = read_set()
local is_refused = {}
for i = next_arg, #ARGV do is_refused[ARGV[i]] = true end
local is_own = {} -- by version, only for versions that `look_up` has checked

local function look_up(versions)
  local is_held = #versions > 0 and redis.call('SMISMEMBER', P .. 'has:' .. wid, unpack(versions)) or {}
  for i, version in ipairs(versions) do
    is_own[version] = more[version] or (is_held[i] == 1 and not less[version])
  end
end

local function runs_suspect()
  if num_owned ~= 1 then return false end
  local id = redis.call('ZRANGE', P .. 'own:' .. wid, 0, 0)[1]
  return redis.call('HGET', P .. 'job:' .. id, 'suspect') == '1'
end

local verdicts = {} -- results of `is_served`, by needs
local function is_served(needs)
  if verdicts[needs] == nil then verdicts[needs] = serves(own_class, needs) end
  return verdicts[needs]
end

-- Return the number of members to skip, so that a scan continues at an arbitrary place after the first
-- `num_seen` members. One claim of a limited worker doesn't see all of a long queue. If all claims saw
-- the same members, the worker would never see the rest.
local function arbitrary_place(num_seen, num_members)
  return math.max(num_seen, tonumber(epoch) % math.max(1, num_members))
end

local function is_empty() return num_owned == 0 and #taken == 0 end

local function has_reached_limit()
  return is_closed or #taken >= MAX_TAKEN or examined >= MAX_EXAMINED or num_expired >= MAX_EXPIRED
end

local function is_done() return has_reached_limit() or only_waiting_follow end

-- Return a cursor over the waiting jobs of one version, in the order of their scores.
local function open(version, score)
  return { version = version, score = score, page = {}, page_size = 4, at = 1, skipped = 0, scans = 0 }
end

-- Return those of the jobs in `page` that the worker serves, and skip the others. Both lists have
-- the form {id, score, id, score...}.
local function skip_unserved(source, page)
  if own_class == '' or #page == 0 then return page end
  local ids, served = {}, {}
  for i = 1, #page, 2 do ids[#ids + 1] = page[i] end
  for i, features in ipairs(redis.call('HMGET', P .. 'featured:' .. source.version, unpack(ids))) do
    if not features or is_served(';' .. features .. ';0') then
      served[#served + 1], served[#served + 2] = ids[i], page[2 * i]
    end
  end
  source.skipped = source.skipped + (#page - #served) / 2
  return served
end

local num_scans = 0
-- Read the next page of a source, and return whether there is one. The page is empty if all of its jobs
-- are for other workers.
local function next_page(source)
  if source.scans >= MAX_SCANS or num_scans >= MAX_ALL_SCANS then return false end
  local key = P .. 'q:' .. source.version
  local page = redis.call('ZRANGE', key, source.skipped, source.skipped + source.page_size - 1, 'WITHSCORES')
  source.page_size = math.min(4 * source.page_size, own_class == '' and PAGE or NAMES_PAGE)
  source.page, source.at = skip_unserved(source, page), 1
  if #source.page < #page then
    num_scans, source.scans = num_scans + 1, source.scans + 1
    if source.scans == MAX_SCANS / 2 then
      source.skipped = arbitrary_place(source.skipped, redis.call('ZCARD', key))
    end
  end
  return #page > 0
end

local function peek(source)
  while source.at > #source.page and next_page(source) do end
  source.score = tonumber(source.page[source.at + 1])
  return source.page[source.at]
end

local function remove(source, id)
  redis.call('ZREM', P .. 'q:' .. source.version, id)
  source.at = source.at + 2
  touched[source.version] = true
end

local function take(source, job)
  remove(source, job.id)
  num_taken_of[job.tenant] = (num_taken_of[job.tenant] or 0) + 1
  local key = P .. 'job:' .. job.id
  local try = redis.call('HINCRBY', key, 'try', 1)
  redis.call('HSET', key, 'state', 'running', 'owner', wid, 'claim', now,
    'timeline', moment(job, 'claimed', now, wid))
  redis.call('ZADD', P .. 'own:' .. wid, epoch, job.id)
  redis.call('SADD', P .. 'run:' .. job.version, job.id)
  if job.reserved then redis.call('HDEL', key, 'reserved') end
  taken[#taken + 1] = { job.id, try, job.suspect and 1 or 0, redis.call('HGET', key, 'body') or '',
    due_of(job) - (now - lag), math.max(0, now - (job.requeued or job.enq)),
    tonumber(job.limit or 0) }
  for _, room in ipairs(job.preemptible and { idle } or { idle, budget }) do
    room.sequences = room.sequences - tonumber(job.sequences)
    room.tokens = room.tokens - tonumber(job.cost)
  end
  local _, field = fair_queueing_fields(job.preemptible)
  virtual_time[field] = math.max(virtual_time[field] or 0, tonumber(job.tag))
  is_closed = job.suspect or budget.sequences <= 0
end

local function skip(source) source.at, source.skipped = source.at + 2, source.skipped + 1 end

-- Leave a large job to larger workers. After many large jobs, continue at an arbitrary place of the
-- queue, so that small jobs don't wait for all large ones.
local function leave_to_larger(source)
  skip(source)
  source.num_large = (source.num_large or 0) + 1
  if source.num_large == MAX_SKIPPED then
    local size = redis.call('ZCARD', P .. 'q:' .. source.version)
    source.skipped = math.max(source.skipped, now % size)
    source.page, source.at = {}, 1
  end
end

local largest, own_capacity = {}, nil -- `largest` is by version and features
-- Return whether the job exceeds this worker's capacity but not that of the largest worker that
-- serves it.
local function is_for_larger(job)
  local key = #classes() > 0 and job.version .. ' ' .. (job.features or '') or ''
  if not largest[key] then
    largest[key] = largest_capacity(classes_serving(job.version, job.features)) or 0
  end
  own_capacity = own_capacity or tonumber(redis.call('ZSCORE', set_of_class('capacity', own_class), wid))
  return tonumber(job.cost) > own_capacity and tonumber(job.cost) <= largest[key]
end

-- Handle a job that the worker has no capacity for now. A suspect needs an idle worker, and a large
-- job needs a large free capacity. The first busy worker that finds such a job reserves it and
-- takes no further jobs until it can run this one. Other workers skip the job. It therefore runs
-- eventually without stopping all workers.
local function skip_or_drain(source, job)
  local by, ms = string.match(job.reserved or '', '^(.*) (%d+)$')
  if by and by ~= wid and is_registered(by) and math.abs(now - ms) < RESERVED_MS then
    skip(source)
    return
  end
  redis.call('HSET', P .. 'job:' .. job.id, 'reserved', wid .. ' ' .. string.format('%d', now))
  is_closed = true
end

local function room_for(job) return job.preemptible and idle or budget end

local function fits(job)
  local room = room_for(job)
  return tonumber(job.sequences) <= room.sequences and tonumber(job.cost) <= room.tokens
end

-- Take, end or skip the next job of the source, or close the claim.
local function serve(source, id)
  examined = examined + 1
  local job = read_job(id)
  if not job.deadline then -- the job's hash was deleted
    remove(source, id)
    count_waiting(nil, -1)
  elseif due_of(job) <= now - lag then
    remove(source, id)
    expire(job, now)
    num_expired = num_expired + 1
  elseif tonumber(job.cost) > room_for(job).tokens and is_for_larger(job) then
    leave_to_larger(source)
  elseif is_empty() or (not job.suspect and fits(job)) then
    take(source, job)
  elseif job.preemptible then
    only_waiting_follow = true
  else
    skip_or_drain(source, job)
  end
end

-- Take up to `limit` jobs from the source; return whether any was taken.
local function serve_from(source, limit)
  local before = #taken
  while not is_done() and #taken - before < limit do
    local id = peek(source)
    if not id then break end
    serve(source, id)
  end
  return #taken > before
end

-- Return some versions of a worker that holds many: those with the oldest waiting jobs, at least as
-- many as jobs may be taken. These versions are usually among the first of `ready`.
local function first_of_many()
  local names, needed = {}, math.min(budget.sequences, MAX_TAKEN) + SPARE_SOURCES
  local heads = redis.call('ZRANGE', P .. 'ready', 0, NAMES_PAGE - 1)
  look_up(heads)
  for _, version in ipairs(heads) do
    if is_own[version] then names[#names + 1] = version end
  end
  if #heads < NAMES_PAGE or #names >= needed then return names end
  names = {}
  for version in pairs(more) do -- few, since a worker reports loaded versions soon
    if #names >= NAMES_PAGE then break end
    names[#names + 1] = version
  end
  local reported = redis.call('ZINTER', 2, P .. 'ready', P .. 'has:' .. wid, 'WEIGHTS', 1, 0)
  for _, version in ipairs(reported) do
    if #names >= NAMES_PAGE + needed then break end
    if not less[version] and not more[version] then names[#names + 1] = version end
  end
  return names
end

local function own_names()
  local num_reported = redis.call('SCARD', P .. 'has:' .. wid)
  if num_reported + num_more > NAMES_PAGE then return first_of_many() end
  local names = {}
  for _, version in ipairs(redis.call('SMEMBERS', P .. 'has:' .. wid)) do
    if not less[version] and not more[version] then names[#names + 1] = version end
  end
  for version in pairs(more) do names[#names + 1] = version end
  return names
end

local function by_score(a, b)
  if a.score ~= b.score then return a.score < b.score end
  return a.version < b.version
end

-- Return cursors of the own versions with waiting jobs, in the order of their first jobs.
local function own_sources()
  local sources, names = {}, own_names()
  for first = 1, #names, NAMES_PAGE do
    local page = { unpack(names, first, math.min(first + NAMES_PAGE - 1, #names)) }
    local scores = redis.call('ZMSCORE', P .. 'ready', unpack(page))
    for i, name in ipairs(page) do
      if scores[i] then sources[#sources + 1] = open(name, tonumber(scores[i])) end
    end
  end
  table.sort(sources, by_score)
  return sources
end

local function insert_by_score(sources, source)
  local low, high = 1, #sources + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sources[middle].score < source.score then low = middle + 1 else high = middle end
  end
  table.insert(sources, low, source)
end

-- Move back the sources whose first jobs are for other workers, until the first source is in order.
local function settle(sources)
  while sources[1] do
    local source = table.remove(sources, 1)
    if peek(source) then
      insert_by_score(sources, source)
      if sources[1] == source then return end
    end
  end
end

-- Serve the sources one job at a time, always from the source whose first job has the lowest score.
local function serve_merged(sources)
  while not is_done() and sources[1] do
    local source = table.remove(sources, 1)
    local id = peek(source)
    if id and sources[1] and source.score > sources[1].score then
      insert_by_score(sources, source)
    else
      if id then serve(source, id) end
      if id and peek(source) then insert_by_score(sources, source) end
    end
  end
end

local function another_loads(version)
  local loader = redis.call('GET', P .. 'load:' .. version)
  return loader and loader ~= wid
end

local function is_foreign(version) return not is_own[version] and not is_refused[version] end

local function start_load(version)
  redis.call('SET', P .. 'load:' .. version, wid, 'NX', 'PX', LOAD_LOCK_MS)
  budget.cold = budget.cold - 1
end

-- Return the first PAGE versions of a page that the worker serves, and how many versions precede the
-- rest of the page.
local function first_served(page)
  if own_class == '' then return page, #page end
  local served = {}
  for i, needs in ipairs(redis.call('HMGET', P .. 'needs', unpack(page))) do
    if is_served(needs or NO_NEEDS) then served[#served + 1] = page[i] end
    if #served == PAGE then return served, i end
  end
  return served, #page
end

-- Return a function that returns the next page of the ready versions that the worker serves and
-- whose scores are up to `max_score`, or nil if there are no more. Versions for other workers don't
-- count towards a page. After many pages of them, continue at an arbitrary place.
local function ready_pages(max_score)
  local num_seen, page_size, scans = 0, PAGE, 0
  return function()
    while scans < MAX_SCANS do
      local page = redis.call('ZRANGE', P .. 'ready', '-inf', max_score, 'BYSCORE', 'LIMIT', num_seen, page_size)
      if #page == 0 then return nil end
      local served, num_before = first_served(page)
      num_seen = num_seen + num_before
      if #served > 0 then return served end
      scans, page_size = scans + 1, NAMES_PAGE
      if scans == MAX_SCANS / 2 then
        num_seen = arbitrary_place(num_seen, redis.call('ZCOUNT', P .. 'ready', '-inf', max_score))
      end
    end
  end
end

-- Return the needs that holders of a version must serve to be compared with this worker: the features
-- of unfinished jobs of the version, if this worker serves them. Return nil to compare all holders.
local function needs_of_featured(version)
  if #classes() == 0 then return nil end
  local features = redis.call('HRANDFIELD', P .. 'featured:' .. version, 1, 'WITHVALUES')[2]
  local needs = features and ';' .. features .. ';0'
  return needs and is_served(needs) and needs or nil
end

-- Return whether no worker holds the version, or none that serves jobs with certain features.
local function has_no_holder(version)
  if redis.call('EXISTS', P .. 'on:' .. version) == 0 then return true end
  local needs = needs_of_featured(version)
  if not needs then return false end
  local _, _, num_able = capacity_of_holders(version, wid, needs)
  return num_able == 0
end

-- Fairness between adapters: take a foreign job that has waited too long before own jobs, since a
-- busy worker may always have own jobs. If other workers hold the job's version, it waits longer,
-- since they may serve it. If no worker holds the version, the job waits about as long as a load
-- takes.
local function serve_overdue(own_score)
  local heads, num_looks = ready_pages(string.format('(%.17g', own_score))() or {}, 0
  look_up(heads)
  for _, version in ipairs(heads) do
    if is_foreign(version) and num_looks < MAX_LOOKS and not another_loads(version) then
      num_looks = num_looks + 1
      if waited_ms(version, now, lag) > (has_no_holder(version) and load_ms or OVERDUE * steal_ms) then
        if serve_from(open(version), 1) then start_load(version) end
        return
      end
    end
  end
end

-- Return whether all holders of the version are full, and its jobs would start earlier on this
-- worker. This worker must first load the version and, unless it is idle, finish about one job.
local function is_backlog(version)
  local needs = needs_of_featured(version)
  local free, running, num_able = capacity_of_holders(version, wid, needs)
  if needs and num_able == 0 then return true end
  if free > 0 then return false end
  local run_ms = tonumber(redis.call('HGET', P .. 'cnt', 'run_ms') or 0)
  return needs_holder(redis.call('ZCARD', P .. 'q:' .. version), running, run_ms,
    steal_ms / LOAD_SHARE, is_empty() and 0 or run_ms)
end

-- Return whether this worker may take jobs of a version that other workers hold. If it may not yet,
-- lower `next_steal` to the time after which it may.
local function may_steal(version)
  local left = steal_ms - waited_ms(version, now, lag)
  if left < 0 or is_backlog(version) then return true end
  if next_steal < 0 or left + 1 < next_steal then next_steal = left + 1 end
  return false
end

local function serve_foreign()
  local num_looks, next_heads = 0, ready_pages('+inf')
  for _ = 1, MAX_PAGES do
    local heads = next_heads()
    if not heads then return end
    local cold = redis.call('ZMSCORE', P .. 'cold', unpack(heads))
    look_up(heads)
    for i, version in ipairs(heads) do
      if is_done() or budget.cold <= 0 then return end
      local may_take = is_foreign(version)
      if may_take and not cold[i] then
        num_looks = num_looks + 1
        may_take = num_looks <= MAX_LOOKS and may_steal(version)
      end
      -- Add one holder at a time, since a single one may suffice.
      may_take = may_take and not another_loads(version)
      if may_take and serve_from(open(version), math.huge) then start_load(version) end
    end
  end
end

local function finish_claim(is_parked)
  for version in pairs(touched) do reindex(version) end
  for tenant, count in pairs(num_taken_of) do count_waiting(tenant, -count) end
  for field, time in pairs(virtual_time) do
    if time > tonumber(redis.call('HGET', P .. 'cnt', field) or 0) then
      redis.call('HSET', P .. 'cnt', field, time)
    end
  end
  if is_parked then
    -- A worker with idle places goes before one that must preempt jobs.
    local score = math.max(0, idle.sequences) + budget.sequences / (budget.sequences + 1)
    redis.call('ZADD', set_of_class('idle', own_class), score, wid)
  else
    redis.call('ZREM', set_of_class('idle', own_class), wid)
  end
end

is_closed = is_closed or runs_suspect()
if not is_closed then
  local sources = own_sources()
  if own_class ~= '' then settle(sources) end
  if budget.cold > 0 and sources[1] then serve_overdue(sources[1].score) end
  serve_merged(sources)
  only_waiting_follow = false -- versions that other workers hold may have jobs that needn't wait
  if budget.cold > 0 and not is_closed then serve_foreign() end
end
-- A claim that took jobs has seen all others unless it reached a limit.
local has_seen_all = #taken == 0 or (not has_reached_limit() and budget.cold == max_cold)
local is_parked = not is_closed and has_seen_all
finish_claim(is_parked)
local has_examined_enough = examined >= MAX_EXAMINED or num_expired >= MAX_EXPIRED
if has_examined_enough and #taken + num_expired > 0 then next_steal = 1 end
return { 'ok', next_steal, is_parked and 1 or 0, unpack(taken) }
