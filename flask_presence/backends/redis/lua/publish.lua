-- Brings a message to every process that listens.
-- ARGV   message
-- reply  ok
-- needs  recall
local said = recall()
if said then
  return said
end
redis.call('PUBLISH', events .. ':messages', ARGV[7])
return answer('ok')
