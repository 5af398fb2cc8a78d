#!lua flags=allow-oom
-- At most 2,010 commands.
-- ARGV: is_paused by. Pauses the pool with 1: workers get no jobs. Lets it continue with 0, and wakes the
-- workers. Returns 1 if the pool's state has changed, else 0.
local MAX_WOKEN = 1000 -- further workers look for jobs within a second
local key, is_paused, by = P .. 'paused', ARGV[1] == '1', ARGV[2]
if is_paused == (redis.call('EXISTS', key) == 1) then return 0 end
record_change(is_paused and 'paused' or 'continued', '', by)
if is_paused then
  redis.call('HSET', key, 'by', by, 'since', now_ms())
  return 1
end
redis.call('DEL', key)
for _, wid in ipairs(redis.call('ZRANGE', P .. 'workers', 0, MAX_WOKEN - 1)) do
  redis.call('RPUSH', P .. 'wake:' .. wid, 'job')
  redis.call('PEXPIRE', P .. 'wake:' .. wid, MAILBOX_TTL_MS)
end
return 1
