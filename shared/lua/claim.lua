#!lua flags=allow-oom
-- At most 2,500 commands, and 8 for each of `sequences` up to 64.
-- ARGV: wid epoch sequences tokens steal_ms max_cold load_ms num_residents resident... refused...
-- Returns {'lost'} | {'ok', ms until the next steal or -1, {id, try, suspect, body, ms left}...}.
local wid, epoch = ARGV[1], ARGV[2]
local room = { sequences = tonumber(ARGV[3]), tokens = tonumber(ARGV[4]), cold = tonumber(ARGV[6]) }
local steal_ms, load_ms = tonumber(ARGV[5]), tonumber(ARGV[7])
local FIRST_RESIDENT = 9
local OVERDUE = 8 -- times steal_ms: a foreign head that waits longer goes before own heads
local LOAD_SHARE = 1.5 -- steal_ms is this many times the measured load time
local PAGE = 64
local MAX_PAGES = 4
local NAMES_PAGE = 512 -- versions looked up in one command
local MAX_NAMES = 16384 -- waiting versions among which own ones are looked for
local SPARE_SOURCES = 16 -- own versions beyond `sequences`, as jobs may be passed by
local MAX_TAKEN = 64
local MAX_EXAMINED = 256
local MAX_EXPIRED = 64
local MAX_LOOKS = 32 -- at foreign heads, for their age
local RESERVED_MS = 5000 -- a draining worker renews its reservation with each claim

if not is_worker(wid) then return { 'lost' } end
local now, lag = read_clock()
local num_owned = redis.call('ZCARD', P .. 'own:' .. wid)
local taken, touched, num_taken_of = {}, {}, {} -- the last by tenant
local virtual_time, examined, num_expired, next_steal = 0, 0, 0, -1
-- Nothing more is taken once a job must not be overtaken, or has to run alone.
local is_closed = room.sequences <= 0
local num_residents = tonumber(ARGV[FIRST_RESIDENT - 1])
local is_resident, is_refused = {}, {}
for i = FIRST_RESIDENT, FIRST_RESIDENT - 1 + num_residents do is_resident[ARGV[i]] = true end
for i = FIRST_RESIDENT + num_residents, #ARGV do is_refused[ARGV[i]] = true end

local function runs_suspect()
  if num_owned ~= 1 then return false end
  local id = redis.call('ZRANGE', P .. 'own:' .. wid, 0, 0)[1]
  return redis.call('HGET', P .. 'job:' .. id, 'suspect') == '1'
end

local function is_empty() return num_owned == 0 and #taken == 0 end

local function is_done()
  return is_closed or #taken >= MAX_TAKEN or examined >= MAX_EXAMINED or num_expired >= MAX_EXPIRED
end

-- A cursor over the waiting jobs of one version, in order of their scores.
local function open(version, score)
  return { version = version, score = score, page = {}, page_size = 4, at = 1, skipped = 0 }
end

local function peek(source)
  if source.at > #source.page then
    source.page = redis.call('ZRANGE', P .. 'q:' .. source.version, source.skipped,
      source.skipped + source.page_size - 1, 'WITHSCORES')
    source.page_size = math.min(4 * source.page_size, PAGE)
    source.at = 1
  end
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
  redis.call('HSET', key, 'state', 'running', 'owner', wid, 'claim', now)
  redis.call('ZADD', P .. 'own:' .. wid, epoch, job.id)
  redis.call('SADD', P .. 'run:' .. job.version, job.id)
  if job.reserved then redis.call('HDEL', key, 'reserved') end
  taken[#taken + 1] = { job.id, try, job.suspect and 1 or 0, redis.call('HGET', key, 'body') or '',
    due_of(job) - (now - lag) }
  room.sequences = room.sequences - tonumber(job.sequences)
  room.tokens = room.tokens - tonumber(job.cost)
  virtual_time = math.max(virtual_time, tonumber(job.tag))
  is_closed = job.suspect or room.sequences <= 0
end

local function pass_by(source) source.at, source.skipped = source.at + 2, source.skipped + 1 end

local own_capacity
-- Whether another worker holds so many tokens, and this one doesn't.
local function is_for_larger(job)
  local largest = redis.call('ZREVRANGE', P .. 'capacity', 0, 0, 'WITHSCORES')[2]
  own_capacity = own_capacity or redis.call('ZSCORE', P .. 'capacity', wid) or largest
  return largest and tonumber(job.cost) > tonumber(own_capacity)
    and tonumber(job.cost) <= tonumber(largest)
end

-- A suspect needs an empty worker, a large job a large gap. The first busy worker that meets it keeps
-- itself free for it and drains, the others pass by: it neither waits for ever, nor stops them all.
local function skip_or_drain(source, job)
  local by, ms = string.match(job.reserved or '', '^(.*) (%d+)$')
  if by and by ~= wid and is_registered(by) and math.abs(now - ms) < RESERVED_MS then
    pass_by(source)
    return
  end
  redis.call('HSET', P .. 'job:' .. job.id, 'reserved', wid .. ' ' .. string.format('%d', now))
  is_closed = true
end

local function fits(job)
  return tonumber(job.sequences) <= room.sequences and tonumber(job.cost) <= room.tokens
end

-- Take the next job of the source, or end it, or pass by it, or close the claim.
local function serve(source, id)
  examined = examined + 1
  local job = read_job(id)
  if not job.deadline then -- somebody deleted its hash
    remove(source, id)
    count_waiting(nil, -1)
  elseif due_of(job) <= now - lag then
    remove(source, id)
    expire(job, now)
    num_expired = num_expired + 1
  elseif tonumber(job.cost) > room.tokens and is_for_larger(job) then
    pass_by(source)
  elseif is_empty() or (not job.suspect and fits(job)) then
    take(source, job)
  else
    skip_or_drain(source, job)
  end
end

-- Serve the source until `most` jobs are taken; true when any was.
local function serve_from(source, most)
  local before = #taken
  while not is_done() and #taken - before < most do
    local id = peek(source)
    if not id then break end
    serve(source, id)
  end
  return #taken > before
end

local function by_score(a, b) return a.score < b.score end

-- Of few own versions, those that wait.
local function sources_of_residents()
  local sources, names = {}, {}
  for i = 1, num_residents do names[i] = ARGV[FIRST_RESIDENT - 1 + i] end
  if #names == 0 then return sources end
  local scores = redis.call('ZMSCORE', P .. 'ready', unpack(names))
  for i, name in ipairs(names) do
    if scores[i] then sources[#sources + 1] = open(name, tonumber(scores[i])) end
  end
  table.sort(sources, by_score)
  return sources
end

-- Of many own versions, the first that wait: as many as there may be jobs taken.
local function sources_of_ready()
  local sources, most = {}, math.min(room.sequences, MAX_TAKEN) + SPARE_SOURCES
  for first = 0, MAX_NAMES - 1, NAMES_PAGE do
    local heads = redis.call('ZRANGE', P .. 'ready', first, first + NAMES_PAGE - 1, 'WITHSCORES')
    for i = 1, #heads, 2 do
      if is_resident[heads[i]] then
        sources[#sources + 1] = open(heads[i], tonumber(heads[i + 1]))
        if #sources >= most then return sources end
      end
    end
    if #heads < 2 * NAMES_PAGE then return sources end
  end
  return sources
end

local function own_sources()
  return num_residents <= NAMES_PAGE and sources_of_residents() or sources_of_ready()
end

-- Merge the sources by the scores of their heads.
local function serve_merged(sources)
  while not is_done() and sources[1] do
    local id = peek(sources[1])
    if id then serve(sources[1], id) end
    if not id or not peek(sources[1]) then
      table.remove(sources, 1)
    else
      local i = 1
      while sources[i + 1] and sources[i + 1].score < sources[i].score do
        sources[i], sources[i + 1] = sources[i + 1], sources[i]
        i = i + 1
      end
    end
  end
end

local function another_loads(version)
  local loader = redis.call('GET', P .. 'load:' .. version)
  return loader and loader ~= wid
end

local function is_foreign(version) return not is_resident[version] and not is_refused[version] end

local function start_load(version)
  redis.call('SET', P .. 'load:' .. version, wid, 'NX', 'PX', LOAD_LOCK_MS)
  room.cold = room.cold - 1
end

-- Fairness over adapters: nobody's head waits for ever behind the own heads of a busy worker. One
-- that others hold may be served by them; one that nobody holds waits as long as its load takes.
local function serve_overdue(own_score)
  local heads = redis.call('ZRANGE', P .. 'ready', '-inf', string.format('(%.17g', own_score),
    'BYSCORE', 'LIMIT', 0, PAGE)
  local looks = 0
  for _, version in ipairs(heads) do
    if is_foreign(version) and looks < MAX_LOOKS and not another_loads(version) then
      looks = looks + 1
      local is_cold = redis.call('EXISTS', P .. 'on:' .. version) == 0
      if waited_ms(version, now, lag) > (is_cold and load_ms or OVERDUE * steal_ms) then
        if serve_from(open(version), 1) then start_load(version) end
        return
      end
    end
  end
end

-- Whether all that hold the version are full, for so long that this worker had better help. Here
-- its jobs would wait for the load, and where others run as well, for about the time of a job.
local function is_backlog(version)
  local free, running = room_of_holders(version, wid)
  if free > 0 then return false end
  local run_ms = tonumber(redis.call('HGET', P .. 'cnt', 'run_ms') or 0)
  return needs_holder(redis.call('ZCARD', P .. 'q:' .. version), running, run_ms,
    steal_ms / LOAD_SHARE, is_empty() and 0 or run_ms)
end

-- Whether this worker may take jobs of a version that others hold; else notes when it may.
local function may_steal(version)
  local left = steal_ms - waited_ms(version, now, lag)
  if left < 0 or is_backlog(version) then return true end
  if next_steal < 0 or left + 1 < next_steal then next_steal = left + 1 end
  return false
end

local function serve_foreign()
  local looks = 0
  for page = 0, MAX_PAGES - 1 do
    local heads = redis.call('ZRANGE', P .. 'ready', page * PAGE, page * PAGE + PAGE - 1)
    if #heads == 0 then return end
    local cold = redis.call('ZMSCORE', P .. 'cold', unpack(heads))
    for i, version in ipairs(heads) do
      if is_done() or room.cold <= 0 then return end
      local may_take = is_foreign(version)
      if may_take and not cold[i] then
        looks = looks + 1
        may_take = looks <= MAX_LOOKS and may_steal(version)
      end
      -- One more holder at a time: it may be all that is needed.
      may_take = may_take and not another_loads(version)
      if may_take and serve_from(open(version), math.huge) then start_load(version) end
    end
  end
end

local function settle()
  for version in pairs(touched) do reindex(version) end
  for tenant, count in pairs(num_taken_of) do count_waiting(tenant, -count) end
  if virtual_time > tonumber(redis.call('HGET', P .. 'cnt', 'vtime') or 0) then
    redis.call('HSET', P .. 'cnt', 'vtime', virtual_time)
  end
  if #taken == 0 and not is_closed then
    redis.call('ZADD', P .. 'idle', room.sequences, wid)
  else
    redis.call('ZREM', P .. 'idle', wid)
  end
end

is_closed = is_closed or runs_suspect()
if not is_closed then
  local sources = own_sources()
  if room.cold > 0 and sources[1] then serve_overdue(sources[1].score) end
  serve_merged(sources)
  if room.cold > 0 and not is_closed then serve_foreign() end
end
settle()
if examined >= MAX_EXAMINED or num_expired >= MAX_EXPIRED then next_steal = 1 end
return { 'ok', next_steal, unpack(taken) }
