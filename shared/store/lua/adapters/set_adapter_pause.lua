#!lua flags=allow-oom
-- At most 10 commands, and 15 for each version of the adapter with waiting jobs.
-- ARGV: name is_paused max_paused by. Pauses an adapter with 1: its jobs wait. Lets workers take them
-- again with 0. `by` is the author for the audit log. Returns 'ok' | 'unknown' | 'full' if `max_paused`
-- adapters are paused.
local name, is_paused, max_paused, by = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), ARGV[4]
local key = P .. 'pausedadapters'
if not is_paused then
  if resume_adapter(name) then
    record_change('adapter_resumed', name, by)
  elseif not current_of(name) then
    return 'unknown'
  end
  return 'ok'
end
if not current_of(name) then return 'unknown' end
if redis.call('HEXISTS', key, name) == 1 then return 'ok' end
if redis.call('HLEN', key) >= max_paused then return 'full' end
redis.call('HSET', key, name, string.format('%.0f', now_ms()))
reindex_name(name, 'ready')
record_change('adapter_paused', name, by)
return 'ok'
