-- Forgets a channel that holds something which no script wrote.
-- ARGV   channel
-- reply  ok
-- needs  channel, keeping
write_though_full()
forget_channel(ARGV[7])
return {'ok'}
