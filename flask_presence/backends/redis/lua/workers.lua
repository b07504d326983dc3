-- Names the workers that are alive.
-- reply  ok, {worker, ...}
-- needs  lease
local alive = {}
for _, worker in ipairs(redis.call('HKEYS', key('workers'))) do
  local lease = lease_of(worker)
  if lease.status == 'alive' and lease.ends > now then
    alive[#alive + 1] = worker
  end
end
return {'ok', alive}
