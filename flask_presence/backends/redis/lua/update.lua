-- Writes a client's meta.
-- ARGV   channel, client, meta
-- reply  changes | not_present
-- needs  recall, saving
local name, client, meta = unpack(ARGV, 7)

local said = recall()
if said then
  return said
end
local scene = open(name)
local own, group
if scene then
  own, group = find(scene, client)
end
if not own then
  return {'not_present'}
end
local seen_info, seen_meta = seen(group)
own[META], own[WROTE] = meta, next_write(scene)
compare(scene, group, seen_info, seen_meta)
return answer(close(scene))
