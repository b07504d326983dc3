-- Gives a channel a new epoch where it still has the old one.
-- ARGV   channel, old epoch, new epoch
-- reply  ok, 1 where it was so
-- needs  keeping
local name, old, new = unpack(ARGV, 7)

if redis.pcall('HGET', key('channel', name), 'epoch') ~= old then
  return {'ok', 0}
end
write_though_full()
redis.call('HSET', key('channel', name), 'epoch', new)
return {'ok', 1}
