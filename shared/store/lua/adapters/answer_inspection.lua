#!lua flags=allow-oom
-- At most 2 commands.
-- ARGV: id report ttl_ms. Publishes the findings of an inspection.
redis.call('RPUSH', P .. 'found:' .. ARGV[1], ARGV[2])
redis.call('PEXPIRE', P .. 'found:' .. ARGV[1], ARGV[3])
