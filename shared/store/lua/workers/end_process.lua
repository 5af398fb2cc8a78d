#!lua flags=allow-oom
-- At most 2 commands.
-- ARGV: kind id. Records that a process ends as planned.
if redis.call('ZREM', P .. 'processes', ARGV[1] .. ' ' .. ARGV[2]) == 1 then
  record_incident(ARGV[1] .. '_left', 'process', ARGV[2])
end
