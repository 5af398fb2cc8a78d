#!lua flags=allow-oom
-- At most 1,300 commands.
-- ARGV: wid. Deletes the records of a lost worker, unless it is back in the pool or still owns
-- jobs. One call removes the worker from the holders of a page of versions. Returns 1, or 0 if another
-- call is needed.
local PAGE = 200
local wid = ARGV[1]
if is_registered(wid) then
  redis.call('ZREM', P .. 'lost', wid)
  return 1
end
if redis.call('EXISTS', P .. 'own:' .. wid) == 1 then return 1 end
local held = redis.call('SRANDMEMBER', P .. 'has:' .. wid, PAGE)
for _, version in ipairs(held) do unhold(wid, version) end
if #held == PAGE then return 0 end
redis.call('DEL', P .. 'w:' .. wid, P .. 'wake:' .. wid, P .. 'sent:' .. wid, P .. 'cancelled:' .. wid)
redis.call('ZREM', P .. 'lost', wid)
return 1
