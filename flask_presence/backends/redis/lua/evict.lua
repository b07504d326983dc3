-- Takes a user, a client or everyone out of a channel, a slice at a time.
-- ARGV   channel, user or '', client or '', reason or '', slice, ms to keep who was last seen
-- reply  ok, changes, 1 where there are more, 1 where a worker held any
-- needs  recall, leaving, saving
local name, user, client, reason, slice, seen_kept = unpack(ARGV, 7)
slice, seen_kept = tonumber(slice), tonumber(seen_kept)

local said = recall()
if said then
  return said
end
local scene = open(name)
if not scene then
  return {'ok', '', 0, 0}
end
local clients = {}
if client ~= '' then
  clients[1] = client
elseif user ~= '' then
  for id in pairs(group_of(scene, user).rows) do
    clients[#clients + 1] = id
  end
else
  -- A scan would walk over the places of all who were evicted before.
  clients = redis.call('HRANDFIELD', key('clients', name), slice)
end
if #clients == 0 then
  return {'ok', '', 0, 0}
end

local gone, held = {}, 0
for _, id in ipairs(clients) do
  local row, group = find(scene, id)
  if row then
    gone[#gone + 1] = {row, group}
    held = row[WORKER] and 1 or held
  end
end
if #gone == 0 then
  return {'ok', '', 0, 0}
end
take_out(scene, gone, function(rows)
  for _, row in ipairs(rows) do
    if row[WORKER] and reason == '' then
      return 'evicted'
    end
  end
  return reason ~= '' and reason or 'left'
end, seen_kept)
local is_everyone = client == '' and user == ''
return answer('ok', close(scene), is_everyone and scene.clients > 0 and 1 or 0, held)
