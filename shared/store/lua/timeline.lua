-- Included in every script before common.lua. Writes the timelines of jobs: one line for each moment,
-- with Unix time in ms, event, worker and reason. '-' stands for no worker. The events are those of
-- shared/protocol/timeline.py.

local moment
do -- a script may have only 200 local names
  local MAX_MOMENTS = 100
  -- Number of moments at the beginning of a long timeline that are kept. Later ones are left out first.
  local FIRST_MOMENTS = 20

  -- Remove a moment from the middle of a timeline that has reached its limit, and count it in the
  -- timeline's first line.
  local function shortened(timeline)
    local _, num_lines = string.gsub(timeline, '\n', '')
    local num_left_out = tonumber(string.match(timeline, '^(%d+)\n') or 0)
    if num_lines - (num_left_out > 0 and 1 or 0) < MAX_MOMENTS then return timeline end
    local lines = {}
    for line in string.gmatch(timeline, '[^\n]+') do lines[#lines + 1] = line end
    if num_left_out > 0 then table.remove(lines, 1) end
    table.remove(lines, FIRST_MOMENTS + 1)
    return (num_left_out + 1) .. '\n' .. table.concat(lines, '\n') .. '\n'
  end

  -- Add a moment to the timeline of a job that was read, and return the timeline. The caller stores it.
  function moment(job, event, now, worker, reason)
    job.timeline = shortened(job.timeline or '')
      .. string.format('%.0f %s %s %s\n', now, event, worker or '-', reason or '')
    return job.timeline
  end
end

-- Add a moment to the timeline of a job that was read, and store it.
local function note(job, event, now, worker, reason)
  redis.call('HSET', P .. 'job:' .. job.id, 'timeline', moment(job, event, now, worker, reason))
end
