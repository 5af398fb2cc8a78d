-- Included in every script before common.lua. Accounts for the tokens that ended jobs have used.
-- `job.books` is the prefix of the pool that has the API keys and the ledger of the job. It is only
-- set if this is another pool.

local MINUTE_MS, DAY_MS = 60000, 86400000
local DEFAULT_USAGE_DAYS = 400

-- Replace the tokens with which a job was charged to the limits of its API key by those that it has
-- used. Windows that are over stay as they are.
local function correct_charge(job, tokens)
  if not job.key or tokens == tonumber(job.cost) then return end
  local key = (job.books or P) .. 'rate:' .. job.key
  local minute, day = unpack(redis.call('HMGET', key, 'minute', 'day'))
  if tonumber(minute) == math.floor(job.enq / MINUTE_MS) then
    redis.call('HINCRBY', key, 'minute_tokens', tokens - job.cost)
  end
  if tonumber(day) == math.floor(job.enq / DAY_MS) then
    redis.call('HINCRBY', key, 'day_tokens', tokens - job.cost)
  end
end

-- Keep the ledger of a tenant and a day as long as the setting says.
local function keep_ledger(books, key, day, tenant)
  local days = redis.call('HGET', P .. 'cnt', 'usage_days') or DEFAULT_USAGE_DAYS
  local tenants, ends_ms = books .. 'ledgers:' .. day, (day + 1 + days) * DAY_MS
  redis.call('PEXPIREAT', key, ends_ms)
  redis.call('SADD', tenants, tenant)
  redis.call('PEXPIREAT', tenants, ends_ms)
end

-- Enter an ended job into the ledger, under the name of its model, which requests can have in several
-- forms. `used` is its usage as its client sees it.
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

-- Account for a job that ends with `usage`, as JSON. Only its final event states a usage, so limits
-- and ledger count no tokens of a job whose worker never reported them.
local function account(job, usage, now)
  local used = usage == 'null' and {} or cjson.decode(usage)
  correct_charge(job, (used.prompt_tokens or 0) + (used.completion_tokens or 0))
  enter_ledger(job, used, now)
end
