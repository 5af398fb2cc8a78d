#!lua flags=allow-oom
-- At most 2 commands for each job of the worker.
-- ARGV: wid grace_ms known... Returns jobs that the worker has owned for grace_ms although they
-- aren't in `known`. The replies to their claims were lost.
local wid, now = ARGV[1], now_ms()
local is_known, unknown = {}, {}
for i = 3, #ARGV do is_known[ARGV[i]] = true end
for _, id in ipairs(redis.call('ZRANGE', P .. 'own:' .. wid, 0, -1)) do
  if not is_known[id] then
    local claimed_ms = redis.call('HGET', P .. 'job:' .. id, 'claim') or 0
    if math.abs(now - claimed_ms) >= tonumber(ARGV[2]) then unknown[#unknown + 1] = id end
  end
end
return unknown
