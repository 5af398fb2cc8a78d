-- Included after records.lua in enqueue.lua. A retry takes the stored request of the old job in the same
-- step in which the new job is enqueued, so that each job is retried at most once.

-- Return whether the request of an ended job is still stored: in its dead letter, or in its record.
local function may_retry(old, letter)
  if letter ~= '' then return #redis.call('XRANGE', P .. 'dead', letter, letter) == 1 end
  return redis.call('HEXISTS', P .. 'job:' .. old, 'body') == 1
end

-- Delete the stored request of a job that is enqueued again as the job `new`.
local function mark_retried(old, letter, new)
  if letter ~= '' then
    redis.call('XDEL', P .. 'dead', letter)
  else
    redis.call('HDEL', P .. 'job:' .. old, 'body')
  end
  if redis.call('EXISTS', P .. 'job:' .. old) == 1 then redis.call('HSET', P .. 'job:' .. old, 'retried', new) end
  local record = read_record(old)
  if not record then return end
  record.retried = new
  redis.call('SET', P .. 'record:' .. old, cjson.encode(record), 'KEEPTTL')
end
