-- A channel as its keys tell it, and whether they tell the truth.
local NUL = string.char(0)

local function is_count(value)
  return value and value >= 0 and value < 2^53 and value == math.floor(value)
end

local function read_channel(name)
  local at = {
    channel = key('channel', name), users = key('users', name),
    clients = key('clients', name), deadlines = key('deadlines', name),
  }
  local found = redis.pcall('HMGET', at.channel, 'epoch', 'revision', 'writes', 'count',
    'anonymous', 'clients', 'waiting')
  local channel = {
    name = name, at = at, epoch = found[1], revision = tonumber(found[2] or nil),
    writes = tonumber(found[3] or nil), count = tonumber(found[4] or nil),
    anonymous = tonumber(found[5] or nil), clients = tonumber(found[6] or nil),
    waiting = tonumber(found[7] or nil),
  }
  -- A channel that lost one of its keys is lost, and so is one whose keys somebody else wrote.
  local is_whole = channel.epoch
    and is_count(channel.revision) and is_count(channel.writes) and is_count(channel.anonymous)
    and redis.pcall('HLEN', at.users) == channel.count
    and redis.pcall('HLEN', at.clients) == channel.clients
    and (channel.waiting == 0 or redis.pcall('ZCARD', at.deadlines) == channel.waiting)
  return is_whole and channel or nil, at
end

-- Names the workers that hold somebody in a channel.
local function holders_of(channel)
  local holders = {}
  for _, field in ipairs(redis.call('HKEYS', channel.at.channel)) do
    if string.sub(field, 1, 2) == 'w:' then
      holders[#holders + 1] = string.sub(field, 3)
    end
  end
  return holders
end

local function forget_channel(name)
  redis.call(
    'UNLINK', key('channel', name), key('users', name), key('clients', name), key('deadlines', name))
  for _, kind in ipairs({'occupied', 'vacated', 'due', 'ahead'}) do
    redis.call('ZREM', key(kind), name)
  end
end
