-- Takes out commands whose numbers no script gave.
-- reply  ok
-- needs  keeping
write_though_full()
redis.call('ZREMRANGEBYSCORE', key('commands'), 2^53, '+inf')
return {'ok'}
