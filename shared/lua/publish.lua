#!lua flags=allow-oom
-- ARGV: wid num_apis (api payload)... (job payload)... Returns 0 when the worker was given up: then
-- nothing was written, and what its jobs have shown is settled.
local wid, num_apis = ARGV[1], tonumber(ARGV[2])
if not is_worker(wid) then return 0 end
local now = now_ms()
for i = 3, 1 + 2 * num_apis, 2 do reply(ARGV[i], ARGV[i + 1], wid, now) end
for i = 3 + 2 * num_apis, #ARGV, 2 do checkpoint(ARGV[i], ARGV[i + 1]) end
return 1
