-- Rows that go, a user at a time.
-- needs  scene, keeping
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
  call_many('HDEL', scene.at.clients, clients)
  scene.clients = scene.clients - #clients
  for worker, members in pairs(held) do
    call_many('ZREM', key('held', worker), members)
    scene.held[worker] = (scene.held[worker] or 0) - #members
  end
  if #waiting > 0 then
    call_many('ZREM', scene.at.deadlines, waiting)
    scene.waiting = scene.waiting - #waiting
    scene.deadlines_moved = true
  end
end

-- Notes until when the user was seen whose rows these were: the latest moment of any, or now.
local function keep_seen(seen_until, user, rows, moments)
  local latest = moments and 0 or now
  for _, row in ipairs(moments and rows or {}) do
    latest = math.max(latest, math.min(moments[row] or now, now))
  end
  seen_until[#seen_until + 1] = latest
  seen_until[#seen_until + 1] = user
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
  local order, leaving, seen_until = {}, {}, {}
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
      keep_seen(seen_until, group.user, leaving[group], moments)
    end
  end
  discard(scene, gone)
  if #seen_until > 0 then
    call_many('ZADD', key('seen'), seen_until, 'GT')
    keep_alive(key('seen'), math.max(keep, seen_kept))
  end
end
