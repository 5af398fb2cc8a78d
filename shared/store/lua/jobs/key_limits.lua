-- Included after common.lua in enqueue.lua. Limits of the API key with which a request was sent.

-- Return the account of a key, or nil if the key is revoked, expired or unknown. Front ends remember
-- keys for some seconds, so they may not know this yet.
local function valid_account(books, key_id, now)
  local digest, revoked_ms, expires_ms =
    unpack(redis.call('HMGET', books .. 'key:' .. key_id, 'digest', 'revoked_ms', 'expires_ms'))
  if not digest or revoked_ms or (expires_ms and now >= tonumber(expires_ms)) then return nil end
  return read_account(books, key_id, now)
end

-- Return the refusal of a request with this cost if it exceeds a limit, or nil.
local function exceeded(account, cost)
  for _, window in ipairs(account) do
    local tokens = window.tokens + account.reserved
    if window.max_requests and window.requests + 1 > window.max_requests then
      return { 'limited', 'requests', window.name, window.max_requests, window.requests, window.left_ms }
    elseif window.max_tokens and tokens + cost > window.max_tokens then
      return { 'limited', 'tokens', window.name, window.max_tokens, tokens, window.left_ms }
    end
  end
end

-- Charge an accepted request to its key, and reserve the tokens of its job. As the job's tokens are
-- published, `meter` turns the reservation into use.
local function charge_request(account, id, cost)
  local limit, has_limits
  for _, window in ipairs(account) do
    window.requests = window.requests + 1
    if window.max_tokens then limit = math.min(limit or math.huge, window.max_tokens) end
    has_limits = has_limits or window.max_requests or window.max_tokens
  end
  if limit then
    account.reserved = account.reserved + cost
    redis.call('HSET', P .. 'job:' .. id, 'metered', 0, 'held', cost, 'limit', limit)
  end
  if has_limits then write_account(account) end
end

-- Append limits and use of the windows to a reply, as shared/protocol/access/rates.py reads them.
local function append_windows(reply, account)
  for _, window in ipairs(account) do
    for _, value in ipairs({ window.left_ms, window.max_requests or -1, window.requests,
      window.max_tokens or -1, window.tokens + account.reserved }) do
      reply[#reply + 1] = value
    end
  end
  return reply
end
