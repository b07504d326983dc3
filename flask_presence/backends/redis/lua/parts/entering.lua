-- Rows that come, and who holds them.
-- needs  scene, keeping
local function detach(scene, row)
  local worker = row[WORKER]
  if worker then
    redis.call('ZREM', key('held', worker), scene.name .. NUL .. row[CLIENT])
    scene.held[worker] = (scene.held[worker] or 0) - 1
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
    redis.call('ZADD', key('held', worker), '0', scene.name .. NUL .. row[CLIENT])
    scene.held[worker] = (scene.held[worker] or 0) + 1
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
    redis.call('ZADD', key('held', worker), '0', scene.name .. NUL .. row[CLIENT])
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
