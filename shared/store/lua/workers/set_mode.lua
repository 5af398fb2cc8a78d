#!lua flags=allow-oom
-- At most 10 commands, and 1 for each class.
-- ARGV: wid mode by. Pauses a worker with 'paused' or 'draining': it gets no further jobs. Resumes it
-- with ''. `by` is the author for the audit log. Returns 'ok' | 'unknown' if it isn't in the pool |
-- 'unable' if its release can't be paused.
local wid, mode, by = ARGV[1], ARGV[2], ARGV[3]
local key = P .. 'w:' .. wid
if not is_registered(wid) then return 'unknown' end
local before, knows_modes = unpack(redis.call('HMGET', key, 'mode', 'knows_modes'))
if not knows_modes then return 'unable' end
if mode == (before or '') then return 'ok' end
record_change(mode == '' and 'worker_resumed' or 'worker_' .. mode, '', by, '', wid)
if mode == '' then
  redis.call('HDEL', key, 'mode')
  redis.call('RPUSH', P .. 'wake:' .. wid, 'job')
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
else
  redis.call('HSET', key, 'mode', mode)
  redis.call('ZREM', P .. 'idle', wid)
  for _, class in ipairs(classes()) do redis.call('ZREM', set_of_class('idle', class), wid) end
end
return 'ok'
