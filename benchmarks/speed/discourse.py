"""Steps of the shape of Discourse's: a mutex around each change, and the message sent after it."""

from __future__ import annotations

import json
import time
from typing import Any

PRESENT = """
local ends, users, channels = unpack(KEYS)
local member, user, moment, name = unpack(ARGV)
local is_new = redis.call('ZADD', ends, moment, member)
redis.call('ZADD', channels, moment, name)
if is_new == 1 then
  redis.call('EXPIRE', ends, 86400)
  redis.call('EXPIRE', users, 86400)
  return redis.call('HINCRBY', users, user, 1) == 1 and 1 or 0
end
return 0
"""

LEAVE = """
local ends, users, channels = unpack(KEYS)
local member, user, name = unpack(ARGV)
if redis.call('ZREM', ends, member) == 0 then
  return 0
end
local left = redis.call('HINCRBY', users, user, -1)
if left <= 0 then
  redis.call('HDEL', users, user)
end
local first = redis.call('ZRANGE', ends, 0, 0, 'WITHSCORES')
if first[2] then
  redis.call('ZADD', channels, first[2], name)
else
  redis.call('ZREM', channels, name)
end
return left <= 0 and 1 or 0
"""

PUBLISH = """
local counter, backlog = unpack(KEYS)
local channel, data, keep = unpack(ARGV)
local number = redis.call('INCR', counter)
redis.call('ZADD', backlog, number, data)
redis.call('EXPIRE', backlog, 3600)
redis.call('EXPIRE', counter, 3600)
if number > tonumber(keep) then
  redis.call('ZREMRANGEBYSCORE', backlog, 1, number - keep)
end
redis.call('PUBLISH', channel, data)
return number
"""

UNLOCK = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


class Discourse:
    """Four round trips for whoever comes or goes; two where nothing changes."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._present, self._leave, self._publish, self._unlock = map(
            client.register_script, (PRESENT, LEAVE, PUBLISH, UNLOCK)
        )

    def enter(self, channel: str, user: str, client_id: str) -> None:
        member = f"{user} {client_id}"
        self._change(
            channel,
            lambda: self._present(
                keys=self._keys(channel), args=[member, user, int(time.time()) + 60, channel]
            ),
            {"entering_users": [{"id": user, "name": user}]},
        )

    def leave(self, channel: str, user: str, client_id: str) -> None:
        member = f"{user} {client_id}"
        self._change(
            channel,
            lambda: self._leave(keys=self._keys(channel), args=[member, user, channel]),
            {"leaving_user_ids": [user]},
        )

    @staticmethod
    def _keys(channel: str) -> list[str]:
        return [f"zlist:{channel}", f"hash:{channel}", "channels"]

    def _change(self, channel: str, change: Any, message: dict[str, Any]) -> None:
        mutex, owner = f"mutex:{channel}", "owner"
        self._client.set(mutex, owner, nx=True, px=5000)
        if change():
            keys = [f"counter:{channel}", f"backlog:{channel}"]
            self._publish(keys=keys, args=[channel, json.dumps(message), 1000])
        self._unlock(keys=[mutex], args=[owner])
