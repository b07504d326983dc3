-- Forgets old commands, and a slice of the channels that have been empty for long and of the users
-- who were last seen long ago.
-- ARGV   ms, slice, ms to keep who was last seen
-- reply  ok, how many were forgotten, 1 where there may be more
-- needs  channel
local span, slice, seen_kept = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])

-- The last command stays: the next one's number comes after it.
local last = redis.call('ZREVRANGE', key('commands'), 0, 0, 'WITHSCORES')[2]
if last then
  redis.call('ZREMRANGEBYSCORE', key('commands'), '-inf', math.min(now - 600000, last - 1))
end

local names = redis.call('ZRANGEBYSCORE', key('vacated'), '-inf', now - span, 'LIMIT', 0, slice)
local dropped = 0
for _, name in ipairs(names) do
  dropped = dropped + redis.call('EXISTS', key('channel', name))
  forget_channel(name)
end

local users = redis.call('ZRANGEBYSCORE', key('seen'), '-inf', now - seen_kept, 'LIMIT', 0, slice)
if #users > 0 then
  redis.call('ZREM', key('seen'), unpack(users))
end
return {'ok', dropped, math.max(#names, #users) == slice and 1 or 0}
