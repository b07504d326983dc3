-- Moves a member's deadline ahead.
-- ARGV   channel, client, ms
-- reply  ok, 1 where the client is in
-- needs  entering, saving
local name, client, span = unpack(ARGV, 7)
span = tonumber(span)

local scene = open(name)
local own, group
if scene then
  own, group = find(scene, client)
end
if not own then
  return {'ok', 0}
end
if own[WORKER] then
  return {'ok', 1}
end
hold(scene, own, false, span)
insert(scene, group, own)
scene.touched[group] = true
close(scene)
return {'ok', 1}
