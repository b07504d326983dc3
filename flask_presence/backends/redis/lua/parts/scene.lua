-- One channel in one step: rows of a user come and go, and what others see of that user before and
-- after decides whether there is a change.
-- needs  channel, rows
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
             clients = 0, waiting = 0, at = at}
  end
  scene.found = {count = scene.count, anonymous = scene.anonymous}
  scene.groups, scene.touched, scene.changes = {}, {}, {}
  scene.pointers, scene.held, scene.keep = {}, {}, keep
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
    if text then
      read_rows(text, group.rows)
    end
  end
  return group
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
  if not group.rows[client] then
    read_rows(rest, group.rows)
  end
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
