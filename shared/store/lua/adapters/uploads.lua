-- Included after common.lua in the scripts that add and delete versions.
-- The source of a version whose files a client has sent is 'upload:' and an id, which is also the
-- end of the key that has the files.

local function is_upload(source) return source and string.sub(source, 1, 7) == 'upload:' end

-- Delete an upload, and give its bytes back to its tenant.
local function discard_upload(source)
  local tenant = redis.call('HGET', P .. source, 'tenant')
  if tenant then redis.call('ZREM', P .. 'uploads:' .. tenant, string.sub(source, 8)) end
  redis.call('UNLINK', P .. source)
end

-- Delete the entry of a version, and the files from which it was uploaded.
local function forget_version(version)
  local source = redis.call('HGET', version_key(version), 'source')
  redis.call('DEL', version_key(version))
  redis.call('HDEL', P .. 'needs', version)
  if is_upload(source) then discard_upload(source) end
end

-- Keep exactly one upload of a version, whose entry has just been given a new source. `before` is
-- its source until then. An earlier upload is kept, because a worker may be reading it.
local function keep_upload(version, before, source)
  if is_upload(before) and before ~= source then
    redis.call('HSET', version_key(version), 'source', before)
    if is_upload(source) then discard_upload(source) end
  elseif is_upload(source) then
    redis.call('HSET', P .. source, 'version', version)
    redis.call('PERSIST', P .. source)
  end
end
