-- Takes clients out of a channel.
-- ARGV   channel, reason, user or '', worker or '', ms to keep who was last seen, client, ...
-- reply  ok, changes
local name, reason, user, worker, seen_kept = unpack(ARGV, 7, 11)

local said = recall()
if said then
  return said
end
local scene = open(name)
if not scene then
  return {'ok', ''}
end
local gone, is_gone = {}, {}
local function take(row, group)
  if not is_gone[row] then
    is_gone[row] = true
    gone[#gone + 1] = {row, group}
  end
end

for i = 12, #ARGV do
  local own, group = find(scene, ARGV[i])
  if own and (worker == '' or own[WORKER] == worker) then
    take(own, group)
  end
end
if user ~= '' then
  local group = group_of(scene, user)
  for _, row in pairs(group.rows) do
    local lease = row[WORKER] and lease_of(row[WORKER])
    if not row[WORKER] or lease and lease.status == 'drained' then
      take(row, group)
    end
  end
end
if #gone == 0 then
  return {'ok', ''}
end
take_out(scene, gone, function() return reason end, tonumber(seen_kept))
return answer({'ok', close(scene)})
