#!lua flags=allow-oom
-- At most 10 commands.
-- ARGV: original copy name version is_equal is_failed similarity tokens candidate_tokens report.
-- Adds the comparison of a shadow pair to the candidate's summary, and keeps the report of a pair that
-- differs. Returns 1, or 0 if the pair was added before or the trial has ended.
local pair, name, version = ARGV[1] .. ' ' .. ARGV[2], ARGV[3], ARGV[4]
local MAX_REPORTS = 100
if redis.call('ZREM', P .. 'shadows', pair) == 0 then return 0 end
if redis.call('HGET', P .. 'adapter:' .. name, 'candidate') ~= version then return 0 end
local key = P .. 'compared:' .. version
redis.call('HINCRBY', key, 'pairs', 1)
redis.call('HINCRBY', key, 'equal', ARGV[5])
redis.call('HINCRBY', key, 'failed', ARGV[6])
redis.call('HINCRBYFLOAT', key, 'similarity', ARGV[7])
redis.call('HINCRBY', key, 'tokens', ARGV[8])
redis.call('HINCRBY', key, 'candidate_tokens', ARGV[9])
if ARGV[5] == '0' then
  redis.call('LPUSH', P .. 'differing:' .. version, ARGV[10])
  redis.call('LTRIM', P .. 'differing:' .. version, 0, MAX_REPORTS - 1)
end
return 1
