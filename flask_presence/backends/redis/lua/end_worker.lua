-- Drains a worker: it holds nothing new, and its members have a deadline.
-- ARGV   worker, ms
-- reply  ok
-- needs  lease
local worker, span = unpack(ARGV, 7)

local lease = lease_of(worker)
if lease and lease.status == 'alive' then
  set_lease(worker, 'drained', now + tonumber(span), span)
end
return {'ok'}
