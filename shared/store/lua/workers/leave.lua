#!lua flags=allow-oom
-- At most 8 commands, and 4 for each class.
-- ARGV: wid. Removes a drained worker from the pool.
take_out(ARGV[1], -1)
