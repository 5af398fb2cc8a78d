#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: wid. Removes a drained worker from the pool.
take_out(ARGV[1], -1)
