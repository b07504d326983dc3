-- Reads a channel, unless somebody in it is due.
-- ARGV   channel, 1 where leases are spared, 1 with the users
-- reply  none | due | ok, epoch, revision, count, anonymous, rows
-- needs  channel, lease
local name, spared, with_users = unpack(ARGV, 7)

local channel = read_channel(name)
if not channel then
  return {'none'}
end
for _, worker in ipairs(holders_of(channel)) do
  if is_over(lease_of(worker), spared == '1') then
    return {'due'}
  end
end
if redis.call('ZCOUNT', key('deadlines', name), '-inf', now) > 0 then
  return {'due'}
end
-- One text is read faster than thousands.
local rows = with_users == '1' and table.concat(redis.call('HVALS', channel.at.users)) or ''
return {'ok', channel.epoch, channel.revision, channel.count, channel.anonymous, rows}
