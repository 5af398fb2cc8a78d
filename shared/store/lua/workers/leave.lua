#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: wid. A drained worker signs off.
take_out(ARGV[1], -1)
