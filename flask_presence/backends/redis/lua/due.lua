-- Finds channels with due members, ends leases that ran out, and forgets workers that hold nobody.
-- ARGV   1 where leases are spared, how many members to look at
-- reply  ok, {channel, ...}, {channel whose deadlines may be too far ahead, ...}, 1 where there
--        may be more though no channel was found
-- needs  lease
local spared, limit = ARGV[7] == '1', tonumber(ARGV[8])

local over, known = {}, {}
local workers = redis.call('HGETALL', key('workers'))
for i = 1, #workers, 2 do
  local worker, lease = workers[i], read_lease(workers[i + 1])
  known[worker] = true
  if lease.ends > now + lease.span then
    set_lease(worker, lease.status, now + lease.span, lease.span)
  elseif is_over(lease, spared) then
    if lease.status == 'alive' then
      set_lease(worker, 'lost', lease.ends, lease.span)
    end
    over[#over + 1] = worker
  end
end
for _, worker in ipairs(redis.call('SMEMBERS', key('holders'))) do
  if not known[worker] then
    over[#over + 1] = worker
  end
end

local names = redis.call('ZRANGEBYSCORE', key('due'), '-inf', now, 'LIMIT', 0, limit)
local is_named, looked = {}, 0
local function look_at(member, worker)
  local name = string.match(member, '^(%Z+)')
  if not name or redis.pcall('HGET', key('channel', name), 'w:' .. worker) == false then
    -- The channel was lost.
    redis.call('ZREM', key('held', worker), member)
  elseif not is_named[name] then
    is_named[name] = true
    names[#names + 1] = name
  end
end

for _, worker in ipairs(over) do
  if looked == limit then
    break
  end
  local members = redis.call('ZRANGE', key('held', worker), 0, limit - looked - 1)
  looked = looked + #members
  for _, member in ipairs(members) do
    look_at(member, worker)
  end
  if #members == 0 then
    redis.call('HDEL', key('workers'), worker)
    redis.call('SREM', key('holders'), worker)
  end
end
local ahead = redis.call('ZRANGEBYSCORE', key('ahead'), '(' .. now, '+inf', 'LIMIT', 0, limit)
return {'ok', names, ahead, #names == 0 and looked == limit and 1 or 0}
