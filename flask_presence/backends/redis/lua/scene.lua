-- One channel in one step: rows of a user come and go, and what others see of that user before and
-- after decides whether there is a change.
local CLIENT, INFO, META, PLACE, NAMED, WROTE, WORKER, SPAN = 1, 2, 3, 4, 5, 6, 7, 8
local NUL = string.char(0)

local KINDS = {'channel', 'users', 'clients', 'deadlines'}

local function is_count(value)
  return value and value >= 0 and value < 2^53 and value == math.floor(value)
end

local function read_channel(name)
  local at = {}
  for _, kind in ipairs(KINDS) do
    at[kind] = key(kind, name)
  end
  local flat = redis.pcall('HGETALL', at.channel)
  local channel = {name = name, holders = {}, at = at}
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    if field == 'epoch' then
      channel.epoch = value
    elseif string.sub(field, 1, 2) == 'w:' then
      channel.holders[string.sub(field, 3)] = tonumber(value)
    else
      channel[field] = tonumber(value)
    end
  end
  -- A channel that lost one of its keys is lost, and so is one whose keys somebody else wrote.
  local is_whole = channel.epoch
    and is_count(channel.revision) and is_count(channel.writes) and is_count(channel.anonymous)
    and redis.pcall('HLEN', at.users) == channel.count
    and redis.pcall('HLEN', at.clients) == channel.clients
    and redis.pcall('ZCARD', at.deadlines) == channel.waiting
  return is_whole and channel or nil, at
end

local function forget_channel(name)
  redis.call(
    'UNLINK', key('channel', name), key('users', name), key('clients', name), key('deadlines', name))
  for _, kind in ipairs({'occupied', 'vacated', 'due', 'ahead'}) do
    redis.call('ZREM', key(kind), name)
  end
end

-- The channel with nothing changed yet; nil where there is none and no epoch to make one with.
local function open(name, epoch)
  local scene, at = read_channel(name)
  if not scene then
    if not epoch then
      return nil
    end
    if redis.call('EXISTS', at.channel, at.users, at.clients, at.deadlines) > 0 then
      forget_channel(name)
    end
    scene = {name = name, epoch = epoch, revision = 0, writes = 0, count = 0, anonymous = 0,
             clients = 0, waiting = 0, holders = {}, at = at}
  end
  scene.found = {count = scene.count, anonymous = scene.anonymous}
  scene.groups, scene.touched, scene.changes = {}, {}, {}
  scene.pointers, scene.seen, scene.keep = {}, {}, keep
  return scene
end

-- Whoever is counted as one: a user's rows by client, or an anonymous client's single one.
local function group_of(scene, user, client, text)
  local id = user and 'u' .. user or 'a' .. client
  local group = scene.groups[id]
  if not group then
    group = {user = user or false, client = client, rows = {}}
    scene.groups[id] = group
    if text == nil then
      text = user and redis.call('HGET', scene.at.users, user)
    end
    for _, row in ipairs(text and cjson.decode(text)[2] or {}) do
      group.rows[row[CLIENT]] = row
    end
  end
  return group
end

-- Reads the groups of many clients at once.
local function prefetch(scene, clients)
  local users, is_named = {}, {}
  for i, text in ipairs(redis.call('HMGET', scene.at.clients, unpack(clients))) do
    scene.pointers[clients[i]] = text
    local user = text and string.sub(text, 1, 1) == 'u' and string.sub(text, 2)
    if user and not is_named[user] then
      is_named[user] = true
      users[#users + 1] = user
    end
  end
  if #users > 0 then
    for i, text in ipairs(redis.call('HMGET', scene.at.users, unpack(users))) do
      group_of(scene, users[i], nil, text)
    end
  end
end

-- A client's row and its group, or nil.
local function find(scene, client)
  local text = scene.pointers[client]
  if text == nil then
    text = redis.call('HGET', scene.at.clients, client)
  end
  if not text then
    return nil
  end
  local rest = string.sub(text, 2)
  if string.sub(text, 1, 1) == 'u' then
    local group = group_of(scene, rest)
    if group.rows[client] then
      return group.rows[client], group
    end
    return nil
  end
  local group = group_of(scene, nil, client)
  group.rows[client] = group.rows[client] or cjson.decode(rest)
  return group.rows[client], group
end

local function next_write(scene)
  scene.writes = scene.writes + 1
  return scene.writes
end

-- What others see of a group: info and meta; nil where it has no rows.
local function seen(group)
  local newest, writer
  for _, row in pairs(group.rows) do
    if not newest or row[NAMED] > newest[NAMED] then newest = row end
    if not writer or row[WROTE] > writer[WROTE] then writer = row end
  end
  if not newest then
    return nil
  end
  if not group.user then
    return '{}', '{}'
  end
  return newest[INFO], writer[META] or '{}'
end

local function compare(scene, group, info, meta, reason)
  scene.touched[group] = true
  local new_info, new_meta = seen(group)
  if info == new_info and meta == new_meta then
    return
  end
  local kind = not info and 'entered' or not new_info and 'left' or 'updated'
  if kind == 'updated' and reason ~= 'healed' then
    reason = false
  end
  local counted = group.user and 'count' or 'anonymous'
  local arrived = kind == 'entered' and 1 or kind == 'left' and -1 or 0
  scene[counted] = scene[counted] + arrived
  scene.revision = scene.revision + 1
  scene.changes[#scene.changes + 1] = {
    kind, scene.revision, group.user or false, new_info or info, new_meta or meta,
    scene.count, scene.anonymous, reason or false,
  }
end

local function detach(scene, row)
  local worker = row[WORKER]
  if worker then
    redis.call('ZREM', key('held', worker), scene.name .. NUL .. row[CLIENT])
    scene.holders[worker] = (scene.holders[worker] or 1) - 1
  else
    redis.call('ZREM', scene.at.deadlines, row[CLIENT])
    scene.waiting = scene.waiting - 1
    scene.deadlines_moved = true
  end
end

local function attach(scene, row, worker, span)
  row[WORKER], row[SPAN] = worker, span
  scene.keep = math.max(scene.keep, span)
  if worker then
    redis.call('ZADD', key('held', worker), 0, scene.name .. NUL .. row[CLIENT])
    scene.holders[worker] = (scene.holders[worker] or 0) + 1
    if scene.holders[worker] == 1 then
      -- It may be the first that the worker holds; later, its renewals keep it.
      keep_alive(key('held', worker), keep)
    end
  else
    -- The only deadline there was may just have been taken out, and its key with it.
    scene.has_first_deadline = scene.has_first_deadline or scene.waiting == 0
    redis.call('ZADD', scene.at.deadlines, now + span, row[CLIENT])
    redis.call('ZADD', key('ahead'), 'GT', now, scene.name)
    scene.waiting = scene.waiting + 1
    scene.deadlines_moved = true
  end
end

-- Has a member held by a worker, or else by a deadline that begins anew.
local function hold(scene, row, worker, span)
  if worker and row[WORKER] == worker then
    redis.call('ZADD', key('held', worker), 0, scene.name .. NUL .. row[CLIENT])
    keep_alive(key('held', worker), keep)
    return
  end
  if row[WORKER] ~= nil then
    detach(scene, row)
  end
  attach(scene, row, worker, span)
end

-- Puts a row where it is not in yet.
local function insert(scene, group, row)
  local client = row[CLIENT]
  if not group.rows[client] then
    group.rows[client] = row
    scene.pointers[client] = group.user and 'u' .. group.user or 'a'
    scene.clients = scene.clients + 1
    if group.user then
      redis.call('HSET', scene.at.clients, client, 'u' .. group.user)
    end
    redis.call('SADD', key('client', client), scene.name)
  end
  keep_alive(key('client', client), scene.keep)
end

-- The row of a client that enters: a new one, or its own with what it gives now.
local function entering(scene, group, own, client, info, meta)
  if own then
    if info ~= own[INFO] then
      own[INFO], own[NAMED] = info, next_write(scene)
    end
    if meta and meta ~= own[META] then
      own[META], own[WROTE] = meta, next_write(scene)
    end
    return own
  end
  local place = scene.revision + 1
  for _, row in pairs(group.rows) do
    place = math.min(place, row[PLACE])
  end
  local row = {client, info, meta, place, next_write(scene)}
  row[WROTE] = meta and next_write(scene) or 0
  return row
end

-- Deletes what leads to rows, with few commands for many of them.
local function discard(scene, gone)
  local clients, held, waiting = {}, {}, {}
  for i, found in ipairs(gone) do
    local client, worker = found[1][CLIENT], found[1][WORKER]
    clients[i] = client
    redis.call('SREM', key('client', client), scene.name)
    if worker then
      held[worker] = held[worker] or {}
      table.insert(held[worker], scene.name .. NUL .. client)
    else
      waiting[#waiting + 1] = client
    end
  end
  call_many('HDEL', key('clients', scene.name), clients)
  scene.clients = scene.clients - #clients
  for worker, members in pairs(held) do
    call_many('ZREM', key('held', worker), members)
    scene.holders[worker] = (scene.holders[worker] or 0) - #members
  end
  if #waiting > 0 then
    call_many('ZREM', scene.at.deadlines, waiting)
    scene.waiting = scene.waiting - #waiting
    scene.deadlines_moved = true
  end
end

-- Keeps until when the user was seen whose rows these were: the latest moment of any, or now.
local function keep_seen(scene, user, rows, moments)
  local latest
  for _, row in ipairs(rows) do
    local moment = math.min(moments and moments[row] or now, now)
    latest = math.max(latest or moment, moment)
  end
  scene.seen[#scene.seen + 1] = latest
  scene.seen[#scene.seen + 1] = user
end

-- Deletes rows, a user at a time in the order of entering; reason(rows) is asked for each. Keeps for
-- so many ms when those were seen who left, 0 being not at all: now, or by row at these moments.
local function take_out(scene, gone, reason, seen_kept, moments)
  table.sort(gone, function(one, other)
    if one[1][PLACE] ~= other[1][PLACE] then
      return one[1][PLACE] < other[1][PLACE]
    end
    return one[1][CLIENT] < other[1][CLIENT]
  end)
  local order, leaving = {}, {}
  for _, found in ipairs(gone) do
    local row, group = found[1], found[2]
    if not leaving[group] then
      leaving[group] = {}
      order[#order + 1] = group
    end
    table.insert(leaving[group], row)
  end
  for _, group in ipairs(order) do
    local info, meta = seen(group)
    local why = reason(leaving[group])
    for _, row in ipairs(leaving[group]) do
      group.rows[row[CLIENT]] = nil
    end
    compare(scene, group, info, meta, why)
    if seen_kept > 0 and group.user and not next(group.rows) then
      keep_seen(scene, group.user, leaving[group], moments)
    end
  end
  discard(scene, gone)
  for i = 1, #scene.seen, 1000 do
    local last = math.min(i + 999, #scene.seen)
    redis.call('ZADD', key('seen'), 'GT', unpack(scene.seen, i, last))
    keep_alive(key('seen'), math.max(keep, seen_kept))
  end
end

local function save_group(scene, group)
  local rows = {}
  for _, row in pairs(group.rows) do
    rows[#rows + 1] = row
  end
  if not group.user then
    if #rows > 0 then
      redis.call('HSET', scene.at.clients, group.client, 'a' .. cjson.encode(rows[1]))
    end
  elseif #rows == 0 then
    scene.emptied[#scene.emptied + 1] = group.user
    redis.call('SREM', key('user', group.user), scene.name)
  else
    local channels = key('user', group.user)
    redis.call('HSET', scene.at.users, group.user, cjson.encode({group.user, rows}))
    redis.call('SADD', channels, scene.name)
    keep_alive(channels, scene.keep)
  end
end

local function save_counters(scene)
  local fields = {'epoch', scene.epoch}
  for _, name in ipairs({'revision', 'writes', 'count', 'anonymous', 'clients', 'waiting'}) do
    fields[#fields + 1] = name
    fields[#fields + 1] = scene[name]
  end
  for worker, held in pairs(scene.holders) do
    if held > 0 then
      fields[#fields + 1] = 'w:' .. worker
      fields[#fields + 1] = held
    else
      redis.call('HDEL', scene.at.channel, 'w:' .. worker)
    end
  end
  call_many('HSET', scene.at.channel, fields)
  if scene.count + scene.anonymous > 0 then
    redis.call('ZADD', key('occupied'), 0, scene.name)
    if scene.found.count + scene.found.anonymous == 0 then
      redis.call('ZREM', key('vacated'), scene.name)
    end
  else
    redis.call('ZREM', key('occupied'), scene.name)
    redis.call('ZADD', key('vacated'), now, scene.name)
  end
end

local function save_deadlines(scene)
  local first = redis.call('ZRANGE', scene.at.deadlines, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', key('due'), first[2], scene.name)
  else
    redis.call('ZREM', key('due'), scene.name)
    redis.call('ZREM', key('ahead'), scene.name)
  end
end

-- All keys of a channel, and those where it is named, are kept together: whenever the first of them
-- has little time left, or one of them may be new.
local function keep_scene(scene)
  local found = scene.found
  local is_settled = (found.count > 0 or scene.count == 0)
    and (found.anonymous > 0 or scene.anonymous == 0)
    and not scene.has_first_deadline
    and scene.count + scene.anonymous > 0
  if is_settled and redis.call('PTTL', scene.at.channel) >= scene.keep then
    return
  end
  for _, name in pairs(scene.at) do
    keep_alive(name, 2 * scene.keep, 2 * scene.keep)
  end
  for _, kind in ipairs({'occupied', 'vacated', 'due', 'ahead'}) do
    keep_alive(key(kind), 2 * scene.keep, 2 * scene.keep)
  end
end

-- Writes what was changed, publishes it, and returns the very text that it published, or ''.
local function close(scene)
  if not next(scene.touched) then
    return ''
  end
  scene.emptied = {}
  for group in pairs(scene.touched) do
    save_group(scene, group)
  end
  call_many('HDEL', scene.at.users, scene.emptied)
  save_counters(scene)
  if scene.deadlines_moved then
    save_deadlines(scene)
  end
  keep_scene(scene)
  if #scene.changes == 0 then
    return ''
  end
  local text = cjson.encode({scene.epoch, scene.changes})
  redis.call('PUBLISH', events .. ':diff:' .. scene.name, text)
  return text
end
