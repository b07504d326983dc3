-- Turns members that name a worker into members with a deadline.
-- ARGV   worker, ms, then channel, client, ... sorted by channel
-- reply  ok
-- needs  entering, saving
local worker, span = unpack(ARGV, 7, 8)
span = tonumber(span)

local scene, name
for i = 9, #ARGV, 2 do
  if ARGV[i] ~= name then
    if scene then
      close(scene)
    end
    name = ARGV[i]
    scene = open(name)
  end
  local own, group
  if scene then
    own, group = find(scene, ARGV[i + 1])
  end
  if own and own[WORKER] == worker then
    hold(scene, own, false, span)
    insert(scene, group, own)
    scene.touched[group] = true
  end
end
if scene then
  close(scene)
end
return {'ok'}
