-- Writes what was changed of a channel, and publishes it.
-- needs  scene, keeping
local function save_group(scene, group)
  local rows = {}
  for _, row in pairs(group.rows) do
    rows[#rows + 1] = row_text(row, group.user)
  end
  if not group.user then
    if #rows > 0 then
      redis.call('HSET', scene.at.clients, group.client, 'a' .. rows[1])
    end
  elseif #rows == 0 then
    scene.emptied[#scene.emptied + 1] = group.user
    redis.call('SREM', key('user', group.user), scene.name)
  else
    local channels = key('user', group.user)
    redis.call('HSET', scene.at.users, group.user, table.concat(rows))
    redis.call('SADD', channels, scene.name)
    keep_alive(channels, scene.keep)
  end
end

-- The channel's count of how many a worker holds there.
local function save_held(scene, worker, more)
  local held = redis.call('HINCRBY', scene.at.channel, 'w:' .. worker, more)
  if held <= 0 then
    redis.call('HDEL', scene.at.channel, 'w:' .. worker)
  elseif held == more then
    -- It may be the first that the worker holds; later, its renewals keep it.
    keep_alive(key('held', worker), keep)
  end
end

local function save_counters(scene)
  redis.call(
    'HSET', scene.at.channel, 'epoch', scene.epoch, 'revision', scene.revision,
    'writes', scene.writes, 'count', scene.count, 'anonymous', scene.anonymous,
    'clients', scene.clients, 'waiting', scene.waiting)
  for worker, more in pairs(scene.held) do
    if more ~= 0 then
      save_held(scene, worker, more)
    end
  end
end

-- Names the channel among those where somebody is, or nobody: whenever that changed, and now and
-- then, as one of the names may be lost.
local function save_name(scene)
  local was_vacant = scene.found.count + scene.found.anonymous == 0
  if scene.count + scene.anonymous == 0 then
    redis.call('ZREM', key('occupied'), scene.name)
    redis.call('ZADD', key('vacated'), now, scene.name)
  elseif was_vacant or scene.deadlines_moved then
    redis.call('ZADD', key('occupied'), '0', scene.name)
    if was_vacant then
      redis.call('ZREM', key('vacated'), scene.name)
    end
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
  save_name(scene)
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
