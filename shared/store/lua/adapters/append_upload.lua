#!lua
-- At most 4 commands.
-- ARGV: id field piece num_left ttl_ms. Stores one piece of an uploaded adapter. `num_left` is how
-- many bytes follow it, as far as the client has announced them. Returns 1, or 0 if jobs would be
-- left with too little of Redis' memory.
local key, piece = P .. 'upload:' .. ARGV[1], ARGV[3]
-- Of `maxmemory`. Less than what enqueue.lua allows in all, so that uploads leave room for jobs.
local MAX_MEMORY_USE = 0.7
local info = redis.call('INFO', 'memory')
local used, max = tonumber(string.match(info, 'used_memory:(%d+)')), tonumber(string.match(info, 'maxmemory:(%d+)'))
if max > 0 and used + #piece + ARGV[4] > max * MAX_MEMORY_USE then return 0 end
redis.call('HSET', key, ARGV[2], piece)
if ARGV[2] ~= 'config' then redis.call('HINCRBY', key, 'size', #piece) end
redis.call('PEXPIRE', key, ARGV[5])
return 1
