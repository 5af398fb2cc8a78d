#!lua flags=allow-oom
-- At most 6 commands.
-- ARGV: id api. Makes an API process a follower of an unfinished job, so that its reply stream gets
-- the job's events. The process is then assumed to have a client of the job. Returns 1, or 0 if
-- the job has ended or is unknown.
local MAX_FOLLOWERS = 8
local id, api = ARGV[1], ARGV[2]
local state, out = unpack(redis.call('HMGET', P .. 'job:' .. id, 'state', 'out'))
if state ~= 'queued' and state ~= 'running' then return 0 end
redis.call('ZREM', P .. 'abandoned', id)
if api == out then
  redis.call('HDEL', P .. 'job:' .. id, 'gone')
  return 1
end
local others = without_follower(id, api)
while #others >= MAX_FOLLOWERS do table.remove(others, 1) end
others[#others + 1] = api
redis.call('HSET', P .. 'followers', id, table.concat(others, ' '))
return 1
