-- Renews a worker's lease, and brings what is new.
-- ARGV   worker, ms, 1 to begin a lease, cursor or '', channel, channel, ...
-- reply  ok, now, 1 where the lease held, cursor, {epoch or '', revision, ...}, {command, ...}
-- needs  lease, keeping
local worker, span, create, cursor = unpack(ARGV, 7, 10)
span, cursor = tonumber(span), tonumber(cursor)

write_though_full()
local lease, held = lease_of(worker), 0
if lease and lease.status == 'alive' or not lease and create == '1' then
  held = 1
  set_lease(worker, 'alive', now + span, span)
  redis.call('SADD', key('holders'), worker)
end
keep_alive(key('workers'), keep)
keep_alive(key('holders'), keep)
keep_alive(key('held', worker), keep)

local positions = {}
for i = 11, #ARGV do
  local found = redis.pcall('HMGET', key('channel', ARGV[i]), 'epoch', 'revision')
  positions[#positions + 1] = found[1] or ''
  positions[#positions + 1] = found[2] or '0'
end

local last = redis.call('ZREVRANGE', key('commands'), 0, 0, 'WITHSCORES')[2] or '0'
local commands = {}
if cursor and cursor ~= tonumber(last) then
  -- Beyond the last: the store lost data, and what is there may all be new.
  local after = cursor < tonumber(last) and cursor or 0
  commands = redis.call('ZRANGEBYSCORE', key('commands'), '(' .. after, '+inf')
end
return {'ok', tostring(now), held, last, positions, commands}
