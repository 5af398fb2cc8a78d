#!lua flags=allow-oom
-- At most 3 commands.
-- ARGV: id. Deletes an upload from which no version was made.
discard_upload('upload:' .. ARGV[1])
