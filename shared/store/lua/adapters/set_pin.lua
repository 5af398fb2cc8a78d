#!lua flags=allow-oom
-- At most 5 commands.
-- ARGV: name replicas max_pins by. Pins a name: its current version is kept on at least `replicas`
-- workers. 0 unpins the name. Returns {'ok', replicas before} | {'unknown'} | {'full'} if `max_pins`
-- names are pinned.
local name, replicas, max_pins, by = unpack(ARGV)
local pins = P .. 'pins'
if not current_of(name) then return { 'unknown' } end
local before = redis.call('HGET', pins, name) or '0'
if before == replicas then return { 'ok', before } end
if before == '0' and redis.call('HLEN', pins) >= tonumber(max_pins) then return { 'full' } end
if replicas == '0' then redis.call('HDEL', pins, name) else redis.call('HSET', pins, name, replicas) end
record_change('pinned', name, by, before, replicas)
return { 'ok', before }
