-- Takes clients out of a channel.
-- ARGV   channel, reason, user or '', worker or '', ms to keep who was last seen, client, ...
-- reply  changes
-- needs  recall, lease, leaving, saving
local name, reason, user, worker, seen_kept = unpack(ARGV, 7, 11)

local said = recall()
if said then
  return said
end
local scene = open(name)
if not scene then
  return ''
end
local group = user ~= '' and group_of(scene, user)
local gone, is_gone = {}, {}
local function take(row, group)
  is_gone[row] = true
  gone[#gone + 1] = {row, group}
end

for i = 12, #ARGV do
  local own, whose = group and group.rows[ARGV[i]], group
  if not own then
    own, whose = find(scene, ARGV[i])
  end
  if own and not is_gone[own] and (worker == '' or own[WORKER] == worker) then
    take(own, whose)
  end
end
for _, row in pairs(group and group.rows or {}) do
  local lease = row[WORKER] and not is_gone[row] and lease_of(row[WORKER])
  if not is_gone[row] and (not row[WORKER] or lease and lease.status == 'drained') then
    take(row, group)
  end
end
if #gone == 0 then
  return ''
end
take_out(scene, gone, function() return reason end, tonumber(seen_kept))
return answer(close(scene))
