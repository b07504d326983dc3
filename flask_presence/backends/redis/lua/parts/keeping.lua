-- How keys live, and what a full store does.
-- A full store refuses what may make it larger, unless the script has written before. What keeps
-- or ends what is there begins with a write that changes nothing.
local function write_though_full()
  redis.call('HDEL', key('workers'), '')
end

-- Calls a command with many arguments, as many at a time as Lua can unpack.
local function call_many(command, name, items, option)
  for i = 1, #items, 1000 do
    local last = math.min(i + 999, #items)
    if option then
      redis.call(command, name, option, unpack(items, i, last))
    else
      redis.call(command, name, unpack(items, i, last))
    end
  end
end

-- Has a key live for so long at the least, and then for twice as long, or for exactly as told.
local function keep_alive(name, ms, exactly)
  if redis.call('PTTL', name) < ms then
    redis.call('PEXPIRE', name, exactly or 2 * ms)
  end
end
