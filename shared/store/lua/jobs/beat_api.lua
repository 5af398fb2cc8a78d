#!lua flags=allow-oom
-- At most 7 commands.
-- ARGV: api is_internal(0|1). Records that an API process is alive. An internal one is part of another
-- process, so it causes no incidents. Returns 1 if the process was unknown or assumed to be
-- dead, else 0. With 1, its jobs may be abandoned, so it has to attach itself to them again.
local FORGET_MS = 86400000 -- by then, the jobs that a dead process accepted have passed their deadlines
local api = ARGV[1]
local now, lag = read_clock()
local seen = redis.call('ZSCORE', P .. 'apis', api)
redis.call('ZADD', P .. 'apis', now - lag, api)
if ARGV[2] ~= '1' then report_process('front_end', api, now - lag) end
redis.call('ZREMRANGEBYSCORE', P .. 'apis', '-inf', now - lag - FORGET_MS)
return (not seen or now - lag - seen >= API_DEAD_MS) and 1 or 0
