-- Included in every script before common.lua. Records of jobs that ended without an answer. They have
-- neither prompts nor answers, and outlive the jobs.

local DEFAULT_UNANSWERED_DAYS = 7

local function count_unanswered(tenant, num_bytes)
  redis.call('HINCRBY', P .. 'cnt', 'unanswered', num_bytes)
  if tonumber(redis.call('ZINCRBY', P .. 'unansweredbytes', num_bytes, tenant)) <= 0 then
    redis.call('ZREM', P .. 'unansweredbytes', tenant)
  end
end

local unanswered_member, record_unanswered
do -- a script may have only 200 local names
  local MAX_KEPT_MESSAGE = 1000 -- bytes of an error's message
  -- Memory of a record in addition to its text and to the text of its member in two indexes.
  local RECORD_OVERHEAD = 350

  local function without_tabs(text) return (string.gsub(text, '%c', ' ')) end

  -- Return the record's member in the indexes: the fields by which records are filtered.
  function unanswered_member(record)
    return table.concat({ record.id, record.state, without_tabs(record.model),
      without_tabs(record.version), record.code, string.format('%.0f', record.bytes), record.tenant }, '\t')
  end

  -- Return an error whose message isn't longer than MAX_KEPT_MESSAGE, and its code.
  local function short_error(error)
    if error == 'null' then return error, '' end
    local decoded = cjson.decode(error)
    local message, last = decoded.message, MAX_KEPT_MESSAGE
    if #message > MAX_KEPT_MESSAGE then
      while last > 0 and string.match(message, '^[\128-\191]', last + 1) do last = last - 1 end
      decoded.message = string.sub(message, 1, last)
      error = cjson.encode(decoded)
    end
    return error, decoded.code
  end

  -- Keep a record of a job that has ended without an answer.
  function record_unanswered(job, state, now, usage, error)
    local kept_error, code = short_error(error)
    local record = { id = job.id, state = state, model = job.model or '', version = job.version,
      tenant = job.tenant, enq = job.enq, claim = job.claim or nil, ['end'] = string.format('%.0f', now),
      try = job.try, error = kept_error, code = code, usage = usage, timeline = job.timeline,
      letter = job.letter or nil, bytes = 0 }
    record.bytes = #cjson.encode(record) + 2 * #unanswered_member(record) + RECORD_OVERHEAD
    local days = redis.call('HGET', P .. 'cnt', 'unanswered_days') or DEFAULT_UNANSWERED_DAYS
    redis.call('SET', P .. 'record:' .. job.id, cjson.encode(record), 'PX', days * DAY_MS)
    local member = unanswered_member(record)
    redis.call('ZADD', P .. 'unanswered', job.enq, member)
    redis.call('ZADD', P .. 'unanswered:' .. job.tenant, job.enq, member)
    count_unanswered(job.tenant, record.bytes)
  end
end
