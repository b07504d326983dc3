"""django-channels-presence as its README sets it up: its models on PostgreSQL, and its receiver.

``python -m benchmarks.speed.django_peer URL`` serves it with daphne, and prints the port.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

ROOM = "room"


def configure(url: str) -> Any:
    """Set up Django on a PostgreSQL, and return the module with ``Room`` and ``Presence``."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    parts = urlsplit(url)
    settings.configure(
        SECRET_KEY="speed",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "channels",
            "channels_presence",
        ],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": parts.hostname,
                "PORT": parts.port,
                "USER": parts.username,
                "NAME": parts.path.strip("/"),
                "CONN_MAX_AGE": None,
            }
        },
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0, run_syncdb=True)
    from channels_presence import models

    return models


def add_users(number: int) -> list[Any]:
    """Users ``u0``, ``u1`` and so on."""
    from django.contrib.auth import get_user_model

    manager = get_user_model().objects
    manager.bulk_create(manager.model(username=f"u{index}") for index in range(number))
    return list(manager.order_by("id"))


def broadcast(sender: Any, room: Any, **about: Any) -> None:
    """The receiver of the README: whoever comes or goes, all are sent the list."""
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    members = [{"id": user.pk, "name": user.username} for user in room.get_users()]
    message = {
        "type": "presence",
        "payload": {
            "channel_name": room.channel_name,
            "members": members,
            "lurkers": room.get_anonymous_count(),
        },
    }
    async_to_sync(get_channel_layer().group_send)(
        room.channel_name, {"type": "forward.message", "text": json.dumps(message)}
    )


def application() -> Any:
    """A consumer that joins the room as the user its query names, once it is told to."""
    from asgiref.sync import sync_to_async
    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels_presence.models import Room
    from django.contrib.auth import get_user_model

    class Consumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
        async def receive(self, text_data: str | None = None, bytes_data: Any = None) -> None:
            if text_data == "watch":
                await self.channel_layer.group_add(ROOM, self.channel_name)
            else:
                await sync_to_async(self._join)(text_data or "")
            await self.send("done")

        def _join(self, name: str) -> None:
            user = get_user_model().objects.get(username=name)
            Room.objects.add(ROOM, self.channel_name, user)

        async def forward_message(self, event: Any) -> None:
            await self.send(event["text"])

    return Consumer.as_asgi()


def serve(url: str) -> None:
    configure(url)
    from channels_presence.models import Presence, Room
    from channels_presence.signals import presence_changed
    from daphne.endpoints import build_endpoint_description_strings
    from daphne.server import Server

    users = add_users(1100)
    room = Room.objects.create(channel_name=ROOM)
    Presence.objects.bulk_create(
        Presence(room=room, channel_name=f"c{user.pk}", user=user) for user in users[100:]
    )
    presence_changed.connect(broadcast)
    server: Any = None

    def ready() -> None:
        print(server.listening_addresses[0][1], flush=True)

    endpoints = build_endpoint_description_strings(host="127.0.0.1", port=0)
    server = Server(application(), endpoints=endpoints, signal_handlers=False, ready_callable=ready)
    server.run()


if __name__ == "__main__":
    serve(sys.argv[1])
