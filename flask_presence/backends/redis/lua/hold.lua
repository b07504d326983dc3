-- Puts back a worker's clients of one channel that the store had lost.
-- ARGV   channel, epoch, worker, then for each: client, user or '', info, meta or ''
-- reply  changes | worker_gone
-- needs  recall, lease, entering, saving
local name, epoch, worker = unpack(ARGV, 7, 9)

local said = recall()
if said then
  return said
end
if (lease_of(worker) or {}).status ~= 'alive' then
  return {'worker_gone'}
end
local scene = open(name, epoch)
for i = 10, #ARGV, 4 do
  local client, user, info, meta = unpack(ARGV, i, i + 3)
  local own, group = find(scene, client)
  group = group or group_of(scene, user ~= '' and user, client)
  local seen_info, seen_meta = seen(group)
  local row = own or entering(scene, group, nil, client, info, meta ~= '' and meta)
  hold(scene, row, worker, 0)
  insert(scene, group, row)
  compare(scene, group, seen_info, seen_meta, 'healed')
end
return answer(close(scene))
