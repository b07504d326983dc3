-- Numbers a command for every worker, and may wake them.
-- ARGV   command, 1 to wake workers
-- reply  ok, number
-- needs  recall, keeping
local said = recall()
if said then
  return said
end
write_though_full()
local last = redis.call('ZREVRANGE', key('commands'), 0, 0, 'WITHSCORES')[2]
-- Never below a number that a store which lost its data may have given before.
local number = math.max((tonumber(last) or 0) + 1, now)
redis.call('ZADD', key('commands'), number, cjson.encode({number, now, ARGV[7]}))
keep_alive(key('commands'), keep)
if ARGV[8] == '1' then
  redis.call('PUBLISH', events .. ':commands', tostring(number))
end
return answer('ok', tostring(number))
