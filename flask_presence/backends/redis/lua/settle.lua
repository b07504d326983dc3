-- Ends a slice of what is due in one channel; first ends leases that ran out.
-- ARGV   channel, 1 where leases are spared, slice, ms to keep who was last seen
-- reply  ok, changes, 1 where there is more
-- needs  recall, lease, leaving, saving
local name, spared, slice, seen_kept = unpack(ARGV, 7)
spared, slice, seen_kept = spared == '1', tonumber(slice), tonumber(seen_kept)

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

local said = recall()
if said then
  return said
end
local scene = open(name)
if not scene then
  -- Members whose channel the store lost: nobody saw them, nobody sees them leave.
  forget_channel(name)
  return {'ok', '', 0}
end

local leases, due = {}, {}
for _, worker in ipairs(holders_of(scene)) do
  local lease = lease_of(worker)
  if lease and lease.status == 'alive' and is_over(lease, spared) then
    lease.status = 'lost'
    set_lease(worker, 'lost', lease.ends, lease.span)
  end
  leases[worker] = lease or {status = 'lost'}
end
for worker, lease in pairs(leases) do
  if is_over(lease, true) and #due < slice then
    local first, last = '[' .. name .. NUL, '(' .. name .. string.char(1)
    local page = redis.call('ZRANGEBYLEX', key('held', worker), first, last, 'LIMIT', 0, slice - #due)
    for _, member in ipairs(page) do
      due[#due + 1] = {string.sub(member, #name + 2), member, worker}
    end
    if #page == 0 then
      -- Its members cannot be found any more: the channel is lost.
      forget_channel(name)
      return {'ok', '', 0}
    end
  end
end
if #due < slice then
  local past = redis.call(
    'ZRANGEBYSCORE', key('deadlines', name), '-inf', now, 'LIMIT', 0, slice - #due)
  for _, client in ipairs(past) do
    due[#due + 1] = {client}
  end
end

local clients = {}
for i, found in ipairs(due) do
  clients[i] = found[1]
end
if #clients > 0 then
  prefetch(scene, clients)
end
local gone, done, moments = {}, {}, {}
for _, found in ipairs(due) do
  local client, member, holder = unpack(found)
  local own, group = find(scene, client)
  if holder and not (own and own[WORKER] == holder) then
    redis.call('ZREM', key('held', holder), member)
  elseif not own then
    -- A deadline of nobody: the channel is lost.
    forget_channel(name)
    return {'ok', '', 0}
  end
  if group and not done[group] then
    done[group] = true
    for _, row in pairs(group.rows) do
      local worker = row[WORKER]
      local ends = not worker and redis.call('ZSCORE', key('deadlines', name), row[CLIENT])
      if worker and is_over(leases[worker], true) or ends and tonumber(ends) <= now then
        gone[#gone + 1] = {row, group}
        moments[row] = worker and leases[worker].ends or tonumber(ends or nil)
      end
    end
  end
end
if #gone == 0 then
  -- Whatever led here is not to lead here again.
  write_though_full()
  save_deadlines(scene)
  return {'ok', '', 0}
end
take_out(scene, gone, function(rows)
  for _, row in ipairs(rows) do
    if not row[WORKER] or (leases[row[WORKER]] or {status = 'lost'}).status ~= 'lost' then
      return 'timeout'
    end
  end
  return 'worker_lost'
end, seen_kept, moments)
return answer('ok', close(scene), #due >= slice and 1 or 0)
