-- Names the channels that a user or a client is in.
-- ARGV   user or client, id
-- reply  ok, {channel, ...}
-- needs  channel
local kind, id = unpack(ARGV, 7)

local found = {}
for _, name in ipairs(redis.call('SMEMBERS', key(kind, id))) do
  if redis.call('HEXISTS', key(kind .. 's', name), id) == 1 and read_channel(name) then
    found[#found + 1] = name
  else
    -- The channel was lost.
    redis.call('SREM', key(kind, id), name)
  end
end
return {'ok', found}
