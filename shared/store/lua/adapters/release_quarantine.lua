#!lua flags=allow-oom
-- At most 13 commands for each version; callers send 32 at a time.
-- ARGV: after_ms by version... Releases the versions that have been quarantined for `after_ms`: they take
-- jobs again. Their counts of dead jobs are kept, so that the next dead job quarantines them again.
-- Also removes versions that aren't quarantined any more from the index. Returns the released versions.
local after_ms, by, now = tonumber(ARGV[1]), ARGV[2], now_ms()
local released = {}

local function release(version)
  redis.call('HSET', version_key(version), 'state', 'ready')
  record_change('released', string.match(version, '^(.*)@') or version, by, '', version)
  redis.call('ZREM', P .. 'quarantined', version)
  redis.call('SREM', P .. 'doomed', version)
  reindex(version)
  record_incident('adapter_released', 'version', version)
  released[#released + 1] = version
end

for i = 3, #ARGV do
  local version = ARGV[i]
  local since_ms = redis.call('ZSCORE', P .. 'quarantined', version) or 0
  if redis.call('HGET', version_key(version), 'state') ~= 'quarantined' then
    redis.call('ZREM', P .. 'quarantined', version)
  elseif math.abs(now - since_ms) >= after_ms then
    release(version)
  end
end
return released
