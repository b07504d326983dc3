-- Pages through what a worker holds, keeps it from expiring, and mends what leads to it.
-- ARGV   worker, channel, client or both '', limit
-- reply  ok, {channel, client, ...} as the page begins, {whether each is in, ...}
-- needs  saving
local worker, channel, client, limit = unpack(ARGV, 7)

local first = channel == '' and '-' or '(' .. channel .. NUL .. client
local page = redis.call('ZRANGEBYLEX', key('held', worker), first, '+', 'LIMIT', 0, limit)
local whole, members, is_in = {}, {}, {}
write_though_full()
for _, member in ipairs(page) do
  local name, id = string.match(member, '^(%Z+)%z(.*)$')
  if name and whole[name] == nil then
    local channel = read_channel(name)
    whole[name] = channel ~= nil
    if channel then
      save_deadlines(channel)
      redis.call('ZADD', key('occupied'), 0, name)
    end
    for _, kind in ipairs({'channel', 'users', 'clients', 'deadlines'}) do
      keep_alive(key(kind, name), keep)
    end
  end
  local pointer = name and whole[name] and redis.call('HGET', key('clients', name), id)
  if pointer then
    redis.call('SADD', key('client', id), name)
    keep_alive(key('client', id), keep)
    if string.sub(pointer, 1, 1) == 'u' then
      local user = string.sub(pointer, 2)
      redis.call('SADD', key('user', user), name)
      keep_alive(key('user', user), keep)
    end
  else
    redis.call('ZREM', key('held', worker), member)
  end
  members[#members + 1] = name or member
  members[#members + 1] = id or ''
  is_in[#is_in + 1] = pointer and 1 or 0
end
for _, kind in ipairs({'occupied', 'due', 'ahead'}) do
  keep_alive(key(kind), keep)
end
keep_alive(key('held', worker), keep)
return {'ok', members, is_in}
