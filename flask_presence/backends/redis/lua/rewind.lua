-- Cuts deadlines that lie further ahead than their timeout: the clock stepped back.
-- ARGV   channel, cursor, slice
-- reply  ok, next cursor
-- needs  saving
local name, cursor, slice = unpack(ARGV, 7)

local scene = open(name)
if not scene then
  redis.call('ZREM', key('ahead'), name)
  return {'ok', '0'}
end
write_though_full()
local page = redis.call('ZSCAN', key('deadlines', name), cursor, 'COUNT', slice)
for i = 1, #page[2], 2 do
  local client, ends = page[2][i], tonumber(page[2][i + 1])
  local row = find(scene, client)
  if row and ends > now + row[SPAN] then
    redis.call('ZADD', key('deadlines', name), now + row[SPAN], client)
  end
end
if page[1] == '0' then
  redis.call('ZADD', key('ahead'), now, name)
end
save_deadlines(scene)
return {'ok', page[1]}
