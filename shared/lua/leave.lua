#!lua flags=allow-oom
-- ARGV: wid. A drained worker signs off; what it still owns is released.
give_back_all(ARGV[1], false, now_ms())
