-- Puts a client into a channel.
-- ARGV   channel, epoch, client, user or '', info, meta or '', worker or '', ms, most users or ''
-- reply  changes | worker_gone | taken | full
-- needs  recall, lease, entering, saving
local name, epoch, client, user, info, meta, worker, span, most = unpack(ARGV, 7)
user, meta, worker = user ~= '' and user, meta ~= '' and meta, worker ~= '' and worker
span, most = tonumber(span), tonumber(most)

local said = recall()
if said then
  return said
end
if worker and (lease_of(worker) or {}).status ~= 'alive' then
  return {'worker_gone'}
end
local scene = open(name, epoch)
local own, group = find(scene, client)
if own and group.user ~= user then
  return {'taken'}
end
group = group or group_of(scene, user, client)
local seen_info, seen_meta = seen(group)
if user and most and not seen_info and scene.count >= most then
  return {'full'}
end

local writes, holder = scene.writes, own and own[WORKER]
local lease = not worker and holder and lease_of(holder)
if lease and lease.status == 'alive' and lease.ends > now then
  -- Its connection holds it already.
  worker = holder
end
local row = entering(scene, group, own, client, info, meta)
hold(scene, row, worker, span)
if own and worker and holder == worker and writes == scene.writes then
  return ''
end
insert(scene, group, row)
compare(scene, group, seen_info, seen_meta)
return answer(close(scene))
