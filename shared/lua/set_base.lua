#!lua flags=allow-oom
-- ARGV: version field value... Returns the version that live workers serve when it is another one.
local version = redis.call('HGET', P .. 'base', 'version')
if version and version ~= ARGV[1] and redis.call('EXISTS', P .. 'workers') == 1 then return version end
if version and version ~= ARGV[1] then -- adapters of another base; workers register theirs after this
  for _, name in ipairs(redis.call('SMEMBERS', P .. 'adapters')) do
    redis.call('DEL', P .. 'adapter:' .. name)
  end
  redis.call('DEL', P .. 'adapters')
end
redis.call('HSET', P .. 'base', unpack(ARGV, 2))
