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
-- users:NAME      hash: user id to the rows of that user's clients
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
