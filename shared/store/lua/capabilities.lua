-- Included in every script by shared/store/redis/scripts.py, before common.lua.
-- KEYS[1] is the pool's prefix `{lk:<pool>}:`. All other keys begin with it and are in the same
-- cluster slot. shared/store/redis/keys.py documents each key.

local P = KEYS[1]

-- A worker that doesn't serve every job is called limited. It belongs to a class: the text form of its
-- capabilities, as in shared/protocol/capabilities.py. The class of other workers is ''. Needs of jobs
-- have the same form. If a pool has no limited workers, it has no classes, and the functions below
-- need at most one command.
local CAPABILITIES = '^(.-);(.-);(%d*)$'
local NO_NEEDS = ';;0'

local known_classes
-- Return the classes of the live limited workers.
local function classes()
  known_classes = known_classes or redis.call('SMEMBERS', P .. 'classes')
  return known_classes
end

-- Return the key of a set of workers of a class. `name` is 'idle' or 'capacity'.
local function set_of_class(name, class)
  return P .. name .. (class == '' and '' or ':' .. class)
end

local function has_all(list, wanted)
  for word in string.gmatch(wanted, '[^,]+') do
    if not string.find(',' .. list .. ',', ',' .. word .. ',', 1, true) then return false end
  end
  return true
end

-- Return whether workers of a class serve jobs with these needs. If `needs` is a class, return whether
-- they serve all jobs that workers of that class serve.
local function serves(class, needs)
  if class == '' then return true end
  if needs == '' then return false end
  local kinds, features, max_rank = string.match(class, CAPABILITIES)
  local needed_kinds, needed_features, rank = string.match(needs, CAPABILITIES)
  return has_all(kinds, needed_kinds) and has_all(features, needed_features)
    and (max_rank == '' or (rank ~= '' and tonumber(rank) <= tonumber(max_rank)))
end

-- Return the needs of a version's jobs with these features, which may be nil or false. The base
-- model has no needs.
local function needs_of(version, features)
  local needs = redis.call('HGET', P .. 'needs', version) or NO_NEEDS
  local kinds, _, rank = string.match(needs, CAPABILITIES)
  return kinds .. ';' .. (features or '') .. ';' .. rank
end

-- Return the classes whose workers serve the version's jobs with these features. The first one is ''.
local function classes_serving(version, features)
  local serving = { '' }
  if #classes() == 0 then return serving end
  local needs = needs_of(version, features)
  for _, class in ipairs(classes()) do
    if serves(class, needs) then serving[#serving + 1] = class end
  end
  return serving
end

-- Return the capacity in tokens of the largest live worker of some classes, or nil.
local function largest_capacity(some_classes)
  local largest
  for _, class in ipairs(some_classes) do
    local found = redis.call('ZREVRANGE', set_of_class('capacity', class), 0, 0, 'WITHSCORES')[2]
    if found then largest = math.max(largest or 0, tonumber(found)) end
  end
  return largest
end
