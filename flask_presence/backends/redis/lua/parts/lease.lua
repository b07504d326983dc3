-- Who may hold members, and for how long.
-- needs  keeping
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
