#!lua flags=allow-oom
-- ARGV: version new_epoch field value... Returns {version that live workers serve when it is another
-- one or '', epoch}. The epoch tells a worker whether the registry still knows its adapters.
local version = redis.call('HGET', P .. 'base', 'version')
if version and version ~= ARGV[1] and redis.call('EXISTS', P .. 'workers') == 1 then
  return { version, '' }
end
local function forget(versions)
  for _, each in ipairs(versions) do redis.call('DEL', version_key(each)) end
end
if version and version ~= ARGV[1] then -- adapters of another base; workers register theirs after this
  for _, name in ipairs(redis.call('SMEMBERS', P .. 'adapters')) do
    forget({ current_of(name), unpack(redis.call('LRANGE', P .. 'previous:' .. name, 0, -1)) })
    redis.call('DEL', P .. 'adapter:' .. name, P .. 'previous:' .. name)
  end
  forget(redis.call('ZRANGE', P .. 'retired', 0, -1))
  redis.call('DEL', P .. 'adapters', P .. 'retired')
  redis.call('HDEL', P .. 'base', 'epoch')
end
redis.call('HSET', P .. 'base', unpack(ARGV, 3))
redis.call('HSETNX', P .. 'base', 'epoch', ARGV[2])
return { '', redis.call('HGET', P .. 'base', 'epoch') }
