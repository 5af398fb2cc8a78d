#!lua flags=allow-oom
-- 1 command.
-- Writes after all earlier writes of this server, of any connection. WAIT and WAITAOF wait for the last
-- write of their own connection, and thereby for all earlier ones.
redis.call('SET', P .. 'barrier', '', 'PX', 60000)
return 1
