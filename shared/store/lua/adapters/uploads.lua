-- Included after common.lua in the scripts that add and delete versions.
-- If a client has sent the files of a version, the source of the version is 'upload:' and an id. The
-- key of the files is the pool's prefix and this source.

local function is_upload(source) return source and string.sub(source, 1, 7) == 'upload:' end

-- Delete an upload, and give its bytes back to its tenant.
local function discard_upload(source)
  local tenant = redis.call('HGET', P .. source, 'tenant')
  if tenant then redis.call('ZREM', P .. 'uploads:' .. tenant, string.sub(source, 8)) end
  redis.call('UNLINK', P .. source)
end

-- Delete the entry of a version, and its upload if it has one.
local function forget_version(version)
  local source = redis.call('HGET', version_key(version), 'source')
  redis.call('DEL', version_key(version))
  redis.call('HDEL', P .. 'needs', version)
  if is_upload(source) then discard_upload(source) end
end

-- Keep exactly one upload of a version, after its entry got a new source. `before` is its previous
-- source. An earlier upload is preferred, because a worker may be reading it.
local function keep_upload(version, before, source)
  if is_upload(before) and before ~= source then
    redis.call('HSET', version_key(version), 'source', before)
    if is_upload(source) then discard_upload(source) end
  elseif is_upload(source) then
    redis.call('HSET', P .. source, 'version', version)
    redis.call('PERSIST', P .. source)
  end
end
