-- Included after common.lua in the scripts that change the followers of a job.

-- Return the API processes other than `api` that were attached to the job.
local function without_follower(id, api)
  local others = {}
  for other in string.gmatch(redis.call('HGET', P .. 'followers', id) or '', '%S+') do
    if other ~= api then others[#others + 1] = other end
  end
  return others
end
