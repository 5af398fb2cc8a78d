#!lua flags=allow-oom
-- 1 command.
-- A write behind everything that this server has so far, whichever connection wrote it: WAIT and
-- WAITAOF look at the last write of their own connection.
redis.call('SET', P .. 'barrier', '', 'PX', 60000)
return 1
