#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: wid. A drained worker signs off; `hand_on` and `forget_worker` do the rest.
local wid = ARGV[1]
if redis.call('ZREM', P .. 'workers', wid) == 1 then redis.call('ZADD', P .. 'lost', -1, wid) end
redis.call('ZREM', P .. 'missing', wid)
redis.call('ZREM', P .. 'capacity', wid)
redis.call('ZREM', P .. 'idle', wid)
