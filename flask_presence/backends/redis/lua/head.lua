-- Opens every script: the arguments that all have in common, the clock, and the names of all keys.
-- ARGV  prefix, clock in ms or '', latest moment in ms or '', ms to keep, operation or '', events
local prefix, clock, latest, keep, operation, events = unpack(ARGV, 1, 6)
keep = tonumber(keep)

local now = tonumber(clock)
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whoever asked has given up long ago, while the server stood still.
if latest ~= '' and now > tonumber(latest) then
  return {'late', tostring(now)}
end

-- channel:NAME    hash: epoch, counters, and w:WORKER with how many members that worker holds
-- users:NAME      hash: user id to their clients' rows
-- clients:NAME    hash: client id to u and its user's id, or a and an anonymous client's row
-- deadlines:NAME  sorted set: client id by deadline
-- held:WORKER     sorted set: channel, NUL, client id
-- user:ID, client:ID                   sets of channel names
-- occupied, vacated, due, ahead        sorted sets of channel names: alphabetic, by moment, by the
--                                      earliest deadline, by when a deadline was set last
-- workers         hash: worker to status, moment and timeout of its lease
-- holders         set of workers that began a lease and are not forgotten
-- commands        sorted set: commands by number
-- seen            sorted set: user id by the moment until which that user was seen
-- reply:ID        what an operation answered, in case it is asked again
local function key(kind, name)
  if name then
    return prefix .. ':' .. kind .. ':' .. name
  end
  return prefix .. ':' .. kind
end

-- A full store refuses what may make it larger, unless the script has written before. What keeps
-- or ends what is there begins with a write that changes nothing.
local function write_though_full()
  redis.call('HDEL', key('workers'), '')
end

-- Calls a command with many arguments, as many at a time as Lua can unpack.
local function call_many(command, name, items)
  for i = 1, #items, 1000 do
    redis.call(command, name, unpack(items, i, math.min(i + 999, #items)))
  end
end

-- Has a key live for so long at the least, and then for twice as long, or for exactly as told.
local function keep_alive(name, ms, exactly)
  if redis.call('PTTL', name) < ms then
    redis.call('PEXPIRE', name, exactly or 2 * ms)
  end
end

local function recall()
  local said = operation ~= '' and redis.call('GET', key('reply', operation))
  return said and cjson.decode(said)
end

local function answer(reply)
  if operation ~= '' then
    redis.call('SET', key('reply', operation), cjson.encode(reply), 'PX', 10000)
  end
  return reply
end

local function read_lease(text)
  local status, ends, span = string.match(text, '^(%a+):(%d+):(%d+)$')
  if not status then
    -- Somebody else wrote it.
    return {status = 'lost', ends = 0, span = 0}
  end
  return {status = status, ends = tonumber(ends), span = tonumber(span)}
end

local function lease_of(worker)
  local text = redis.call('HGET', key('workers'), worker)
  return text and read_lease(text) or nil
end

local function set_lease(worker, status, ends, span)
  write_though_full()
  redis.call('HSET', key('workers'), worker, status .. ':' .. ends .. ':' .. span)
end

-- Are the members of this lease's worker due? Unknown workers' are. One that ran out, but was not
-- ended, is not over where it is spared.
local function is_over(lease, spared)
  if not lease or lease.status == 'lost' then
    return true
  end
  return lease.ends <= now and (lease.status == 'drained' or not spared)
end
