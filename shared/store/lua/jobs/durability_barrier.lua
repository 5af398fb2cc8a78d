#!lua flags=allow-oom
-- 2 commands.
-- Makes one write after all earlier writes of any connection. WAIT and WAITAOF wait for the last
-- write of their own connection, and thereby for all writes before it. Returns the server's
-- replication id, and the number of its replicas that are in sync and have answered lately.
local MAX_LAG_S = 10 -- replicas answer once a second
redis.call('SET', P .. 'barrier', '', 'PX', 60000)
local info = redis.call('INFO', 'replication')
local num_replicas = 0
for replica in string.gmatch(info, '\nslave%d+:([^\r\n]*)') do
  local lag = tonumber(string.match(replica, 'lag=(%-?%d+)'))
  if string.find(replica, 'state=online', 1, true) and lag and lag <= MAX_LAG_S then
    num_replicas = num_replicas + 1
  end
end
return { string.match(info, 'master_replid:(%x+)') or '', num_replicas }
