-- Included in every script before common.lua. Accounts for the tokens that jobs use.
-- `job.books` is the prefix of the pool that has the API key and the ledger of the job. It is set only
-- if that isn't the job's own pool.

local MINUTE_MS, DAY_MS = 60000, 86400000
local DEFAULT_USAGE_DAYS = 400

local RATE_TTL_MS = 2 * DAY_MS
local LIMIT_FIELDS = { 'requests_per_minute', 'tokens_per_minute', 'requests_per_day', 'tokens_per_day' }
local RATE_FIELDS = { 'minute', 'minute_requests', 'minute_tokens', 'day', 'day_requests', 'day_tokens',
  'reserved' }

-- Return the present window of `length_ms` with its limits, which are nil if the key has none.
-- `counted` has the number of the window that was counted last, its requests and its tokens. Tokens
-- beyond the limit are a debt. Each later window pays off as many tokens as its limit.
local function window_of(name, length_ms, now, max_requests, max_tokens, counted)
  local number = math.floor(now / length_ms)
  local passed = math.abs(number - (counted[1] or number)) -- a clock may be set back
  local requests, tokens, limit = counted[2] or 0, counted[3] or 0, tonumber(max_tokens)
  if passed > 0 then requests, tokens = 0, limit and math.max(0, tokens - limit * passed) or 0 end
  return {
    name = name, number = number, left_ms = (number + 1) * length_ms - now,
    max_requests = tonumber(max_requests), requests = tonumber(requests),
    max_tokens = limit, tokens = tonumber(tokens),
  }
end

-- Return the account of an API key: its present minute and day, and the tokens that its unfinished
-- jobs may still use. `books` is the prefix of the pool that has the key.
local function read_account(books, key_id, now)
  local minute_requests, minute_tokens, day_requests, day_tokens =
    unpack(redis.call('HMGET', books .. 'key:' .. key_id, unpack(LIMIT_FIELDS)))
  local counted = redis.call('HMGET', books .. 'rate:' .. key_id, unpack(RATE_FIELDS))
  return {
    key = books .. 'rate:' .. key_id,
    reserved = tonumber(counted[7] or 0),
    window_of('minute', MINUTE_MS, now, minute_requests, minute_tokens, counted),
    window_of('day', DAY_MS, now, day_requests, day_tokens, { unpack(counted, 4) }),
  }
end

local function write_account(account)
  local values = { 'reserved', account.reserved }
  for _, window in ipairs(account) do
    for field, value in pairs({ [''] = window.number, _requests = window.requests, _tokens = window.tokens }) do
      values[#values + 1] = window.name .. field
      values[#values + 1] = value
    end
  end
  redis.call('HSET', account.key, unpack(values))
  redis.call('PEXPIRE', account.key, RATE_TTL_MS)
end

-- Charge the tokens that a job has used since its last charge to the present windows of its API key,
-- and take them from the job's reservation. `used` is the number of all tokens that the job has used
-- so far. An ended job frees the rest of its reservation. Returns the account of the key and the rest
-- of the reservation, or nil if the key doesn't limit tokens.
local function meter(job, used, now, has_ended)
  if not job.metered then return nil end
  local metered, held = tonumber(job.metered), tonumber(job.held)
  local account, new = read_account(job.books or P, job.key, now), math.max(0, used - metered)
  local left = has_ended and 0 or math.max(0, held - new)
  account.reserved = math.max(0, account.reserved - (held - left))
  for _, window in ipairs(account) do window.tokens = window.tokens + new end
  write_account(account)
  if not has_ended then redis.call('HSET', P .. 'job:' .. job.id, 'metered', metered + new, 'held', left) end
  return account, left
end

-- Make the ledger of one tenant and day expire `usage_days` after that day.
local function keep_ledger(books, key, day, tenant)
  local days = redis.call('HGET', P .. 'cnt', 'usage_days') or DEFAULT_USAGE_DAYS
  local tenants, ends_ms = books .. 'ledgers:' .. day, (day + 1 + days) * DAY_MS
  redis.call('PEXPIREAT', key, ends_ms)
  redis.call('SADD', tenants, tenant)
  redis.call('PEXPIREAT', tenants, ends_ms)
end

-- Add an ended job to the ledger, under the name of its adapter or base model. `used` is the usage that
-- the client sees.
local function enter_ledger(job, used, now)
  local books, day = job.books or P, math.floor(now / DAY_MS)
  local key = books .. 'ledger:' .. day .. ':' .. job.tenant
  local name = string.match(job.version, '^(.*)@') or job.model
  local entry = redis.call('HGET', key, name) or '0 0 0 0'
  local requests, prompt, cached, completion = string.match(entry, '(%d+) (%d+) (%d+) (%d+)')
  entry = string.format('%.0f %.0f %.0f %.0f', requests + 1, prompt + (used.prompt_tokens or 0),
    cached + (used.cached_tokens or 0), completion + (used.completion_tokens or 0))
  if redis.call('HSET', key, name, entry) == 1 then keep_ledger(books, key, day, job.tenant) end
end

-- Account for a job that ends. `usage` is JSON, or 'null' if the worker hasn't reported it. In the
-- latter case, the ledger gets no tokens, but the key's limits keep the charge for published tokens.
local function account(job, usage, now)
  local used = usage == 'null' and {} or cjson.decode(usage)
  meter(job, (used.prompt_tokens or 0) + (used.completion_tokens or 0), now, true)
  enter_ledger(job, used, now)
end
