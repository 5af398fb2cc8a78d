#!lua flags=allow-oom
-- At most 8 commands, and 4 for each class.
-- ARGV: wid. Removes a worker that stops from the pool.
take_out(ARGV[1], -1)
