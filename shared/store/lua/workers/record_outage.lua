#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: away_ms. Records that Redis didn't answer a process for about `away_ms` until now, unless another
-- process has recorded an overlapping outage.
local now = now_ms()
local lost = now - tonumber(ARGV[1])
if lost < tonumber(redis.call('HGET', P .. 'cnt', 'outage_ms') or 0) then return end
redis.call('HSET', P .. 'cnt', 'outage_ms', now)
record_incident('redis_lost', 'at', string.format('%.0f', lost))
record_incident('redis_back')
