-- Included after common.lua in enqueue.lua. Limits of the API key with which a request was sent.
-- `books` is the prefix of the pool that has the key.

local RATE_TTL_MS = 2 * DAY_MS
local KEY_FIELDS = { 'digest', 'revoked_ms', 'expires_ms', 'requests_per_minute', 'tokens_per_minute',
  'requests_per_day', 'tokens_per_day' }
local RATE_FIELDS = { 'minute', 'minute_requests', 'minute_tokens', 'day', 'day_requests', 'day_tokens' }

-- Return the present window of `length_ms` with its limits, which are false if the key has none.
-- `counted` has the number of the window that was counted last, its requests and its tokens.
local function window_of(name, length_ms, now, max_requests, max_tokens, counted)
  local number = math.floor(now / length_ms)
  local is_present = tonumber(counted[1]) == number
  return {
    name = name, number = number, left_ms = (number + 1) * length_ms - now,
    max_requests = tonumber(max_requests), requests = is_present and tonumber(counted[2]) or 0,
    max_tokens = tonumber(max_tokens), tokens = is_present and tonumber(counted[3]) or 0,
  }
end

-- Return the present minute and day of a key, or nil if the key is revoked, expired or unknown.
-- Front ends remember keys for some seconds, so only this check is exact.
local function windows_of(books, key_id, now)
  local digest, revoked_ms, expires_ms, minute_requests, minute_tokens, day_requests, day_tokens =
    unpack(redis.call('HMGET', books .. 'key:' .. key_id, unpack(KEY_FIELDS)))
  if not digest or revoked_ms or (expires_ms and now >= tonumber(expires_ms)) then return nil end
  local counted = redis.call('HMGET', books .. 'rate:' .. key_id, unpack(RATE_FIELDS))
  return {
    window_of('minute', MINUTE_MS, now, minute_requests, minute_tokens, counted),
    window_of('day', DAY_MS, now, day_requests, day_tokens, { unpack(counted, 4) }),
  }
end

-- Return the refusal of a request with this cost if it exceeds a limit, or nil.
local function exceeded(windows, cost)
  for _, window in ipairs(windows) do
    if window.max_requests and window.requests + 1 > window.max_requests then
      return { 'limited', 'requests', window.name, window.max_requests, window.requests, window.left_ms }
    elseif window.max_tokens and window.tokens + cost > window.max_tokens then
      return { 'limited', 'tokens', window.name, window.max_tokens, window.tokens, window.left_ms }
    end
  end
end

-- Charge an accepted request to the windows of its key, unless the key has no limits.
local function charge_windows(books, key_id, windows, cost)
  local values, has_limits = {}, false
  for _, window in ipairs(windows) do
    window.requests, window.tokens = window.requests + 1, window.tokens + cost
    values[#values + 1] = window.name
    values[#values + 1] = window.number
    values[#values + 1] = window.name .. '_requests'
    values[#values + 1] = window.requests
    values[#values + 1] = window.name .. '_tokens'
    values[#values + 1] = window.tokens
    has_limits = has_limits or window.max_requests or window.max_tokens
  end
  if not has_limits then return end
  redis.call('HSET', books .. 'rate:' .. key_id, unpack(values))
  redis.call('PEXPIRE', books .. 'rate:' .. key_id, RATE_TTL_MS)
end

-- Append limits and use of the windows to a reply, as shared/protocol/access/rates.py reads them.
local function append_windows(reply, windows)
  for _, window in ipairs(windows) do
    for _, value in ipairs({ window.left_ms, window.max_requests or -1, window.requests,
      window.max_tokens or -1, window.tokens }) do
      reply[#reply + 1] = value
    end
  end
  return reply
end
