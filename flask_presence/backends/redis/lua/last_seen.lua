-- Tells until when users were seen; only of the first ones, where they are in many channels.
-- ARGV   how many channels to look at, user, user, ...
-- reply  ok, {moment or '', ...}
-- needs  lease, scene
local limit, looked = tonumber(ARGV[7]), 0
local leases, channels = {}, {}
local function lease(worker)
  leases[worker] = leases[worker] or lease_of(worker) or {}
  return leases[worker]
end

local function is_whole(name)
  if channels[name] == nil then
    channels[name] = read_channel(name) ~= nil
  end
  return channels[name]
end

-- The moment up to which a member is held.
local function held_until(name, row)
  if row[WORKER] then
    return lease(row[WORKER]).ends or now
  end
  return tonumber(redis.call('ZSCORE', key('deadlines', name), row[CLIENT]) or now)
end

local function seen_in(name, user)
  local text = redis.call('HGET', key('users', name), user)
  local latest = 0
  if text and is_whole(name) then
    local rows = {}
    read_rows(text, rows)
    for _, row in pairs(rows) do
      latest = math.max(latest, held_until(name, row))
    end
  end
  return latest
end

local found = {}
for i = 8, #ARGV do
  if looked >= limit then
    break
  end
  local user = ARGV[i]
  local latest = tonumber(redis.call('ZSCORE', key('seen'), user) or 0)
  for _, name in ipairs(redis.call('SMEMBERS', key('user', user))) do
    latest, looked = math.max(latest, seen_in(name, user)), looked + 1
    if latest >= now then
      break
    end
  end
  found[#found + 1] = latest > 0 and tostring(math.min(latest, now)) or ''
end
return {'ok', found}
