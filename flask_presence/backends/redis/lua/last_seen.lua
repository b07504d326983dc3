-- Tells until when users were seen.
-- ARGV   user, user, ...
-- reply  ok, {moment or '', ...}
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
    for _, row in ipairs(cjson.decode(text)[2]) do
      latest = math.max(latest, held_until(name, row))
    end
  end
  return latest
end

local found = {}
for i = 7, #ARGV do
  local user = ARGV[i]
  local latest = tonumber(redis.call('ZSCORE', key('seen'), user) or 0)
  for _, name in ipairs(redis.call('SMEMBERS', key('user', user))) do
    latest = math.max(latest, seen_in(name, user))
    if latest >= now then
      break
    end
  end
  found[#found + 1] = latest > 0 and tostring(math.min(latest, now)) or ''
end
return {'ok', found}
