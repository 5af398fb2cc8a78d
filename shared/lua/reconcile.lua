#!lua flags=allow-oom
-- ARGV: wid grace_ms known... Takes back what is booked on the worker, but unknown to it: claims
-- whose reply was lost. Returns how many.
local wid, now = ARGV[1], now_ms()
local is_known, unknown = {}, {}
for i = 3, #ARGV do is_known[ARGV[i]] = true end
local settled = redis.call('ZRANGEBYSCORE', P .. 'own:' .. wid, '-inf', now - tonumber(ARGV[2]))
for _, id in ipairs(settled) do
  if not is_known[id] then unknown[#unknown + 1] = id end
end
local moved = give_back(wid, unknown, false, now)
return moved[1] + moved[2]
