#!lua flags=allow-oom
-- 1 command.
-- Makes one write after all earlier writes of any connection. WAIT and WAITAOF wait for the last
-- write of their own connection, and thereby for all writes before it.
redis.call('SET', P .. 'barrier', '', 'PX', 60000)
return 1
