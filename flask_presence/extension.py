"""`Presence`: sets an app up, and holds the app's hooks."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from apscheduler.schedulers.base import BaseScheduler
from flask import Flask, current_app, has_request_context

from . import http, templating
from .assembly import AppPresence, assemble
from .backends.base import Backend
from .channels import Rules
from .doctor import is_open_to_all
from .handle import Channel
from .identity import Hooks, user_id_of
from .model import Change, Identity
from .protocol import check_channel_name, check_id, check_prefix
from .queries import expressions_for, need_sql
from .settings import Settings
from .sockets import SocketIOTransport
from .store import make_backend

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class Presence:
    """Who is here? One extension for an app, or for several.

    :param app: the app to begin with; else call `init_app`.
    :param socketio: the app's Flask-SocketIO; the one initialised on it where not given.
    :param db: the app's Flask-SQLAlchemy; likewise.
    :param backend: instead of the setting ``PRESENCE_BACKEND``.
    :param scheduler: an APScheduler that gets the jobs, and is started and stopped by its owner.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        socketio: Any = None,
        db: Any = None,
        backend: str | Backend | None = None,
        scheduler: BaseScheduler | None = None,
    ) -> None:
        self._options = {
            "socketio": socketio,
            "db": db,
            "backend": backend,
            "scheduler": scheduler,
        }
        self._rules = Rules()
        self._hooks = Hooks(_flask_login_user)
        if app is not None:
            self.init_app(app)

    def init_app(
        self,
        app: Flask,
        *,
        socketio: Any = None,
        db: Any = None,
        backend: str | Backend | None = None,
        scheduler: BaseScheduler | None = None,
    ) -> None:
        """Set presence up on an app. Starts no thread and asks no store.

        :raises RuntimeError: Flask-SocketIO is not set up on the app, or presence already is.
        :raises ValueError: a setting makes no sense; names its key.
        """
        if "presence" in app.extensions:
            raise RuntimeError("Presence is set up on this app already: call init_app only once.")
        socketio = socketio or self._options["socketio"] or app.extensions.get("socketio")
        server = getattr(socketio, "server", None)
        if server is None:
            raise RuntimeError(
                "Flask-SocketIO is not set up on this app: call socketio.init_app(app) before "
                "presence.init_app(app)."
            )
        settings = Settings.read(_with_backend(app, backend or self._options["backend"]))
        db = db or self._options["db"] or app.extensions.get("sqlalchemy")
        transport = SocketIOTransport(server, settings.namespace)
        state = assemble(
            app,
            socketio,
            settings,
            make_backend(app, settings, db),
            rules=self._rules,
            hooks=self._hooks,
            transport=transport,
        )
        scheduler = scheduler or self._options["scheduler"]
        if scheduler is None:
            state.tracker.on_start(lambda: state.jobs.start(server.eio.async_mode))
        else:
            state.jobs.add_to(scheduler)
        state.tracker.on_start(lambda: _warn_of_open_door(server))
        state.tracker.on_tick(state.jobs.check)
        state.tracker.on_tick(transport.end_backlogs)
        templating.register(
            app,
            settings,
            socketio_path=socketio.sockio_mw.engineio_path.rstrip("/"),
            state_of=lambda name: self._forms([name])[name],
        )
        http.register(app, settings, states_of=self._forms)
        state.serve(app)
        _begin_anew_after_fork(state)

    # Hooks

    def channel_config(self, rule: str) -> Callable[[F], F]:
        """Register a callback for channels that match a routing rule, or for a bare prefix.

        The callback gets the rule's values, or the whole name, and returns a `ChannelConfig`, or
        ``None`` where there is no such channel.

        :raises ValueError: the rule is malformed, or registered twice.
        """
        self._rules.check(rule)

        def register(callback: F) -> F:
            self._rules.add(rule, callback)
            return callback

        return register

    def user_loader(self, callback: F) -> F:
        """Register what tells who a client is, from its ``auth`` payload; ``None``: anonymous."""
        self._hooks.load_user = callback
        return callback

    def user_info(self, callback: F) -> F:
        """Register what others see of a user: a small dict that is JSON."""
        self._hooks.info = callback
        return callback

    def user_groups(self, callback: F) -> F:
        """Register what gives a user's group ids."""
        self._hooks.groups = callback
        return callback

    # The server's side

    def channel(self, name: str) -> Channel:
        """A channel, to look at and to change.

        :raises ChannelNotFound: its callback says that there is none.
        """
        state = _current()
        state.tracker.registry.resolve(name)
        return Channel(
            name,
            state.tracker,
            identify=self._identify,
            max_meta_bytes=state.settings.max_meta_bytes,
            begin=_begin_in_request,
        )

    def channels(self, prefix: str | None = None) -> dict[str, int]:
        """Occupied channels with how many users are in each; may lag by one prune.

        :param prefix: only those below this bare prefix, as in `channel_config`.
        :raises ValueError: it is no bare prefix.
        """
        if prefix is not None:
            check_prefix(prefix)
        return _current().tracker.backend.channels(prefix)

    def channels_of(self, user: Any) -> list[str]:
        """Names of the channels that a user is in."""
        return _current().tracker.backend.channels_of(user_id=user_id_of(user))

    @property
    def models(self) -> Any:
        """Mapped classes to query, ``Channel`` and ``Member``.

        :raises RuntimeError: presence is not kept in an SQL database.
        """
        backend = _current().backend
        return need_sql(backend, backend.models, "models")

    def is_present(
        self, user_id: Any, channel: str | None = None, prefix: str | None = None
    ) -> Any:
        """An SQL expression: is the user of this id here now?

        For queries of the app's own that select from the column's table, such as
        ``select(User).where(presence.is_present(User.id))``. Presence has to be in the same
        database as that table, as with ``PRESENCE_BACKEND = "sqlalchemy://"``. The clock and the
        leases are read when the query runs, so that nobody is shown who is due.

        :param user_id: a column of type Integer, String or Uuid whose values are the users' ids.
        :param channel: only in this channel; anywhere where neither is given.
        :param prefix: only in channels below this bare prefix, as in `channel_config`.
        :raises RuntimeError: presence is not kept in an SQL database, or is in another one.
        :raises TypeError: the column's type does not tell the users' ids.
        :raises ValueError: that is no channel name, or no bare prefix, or both are given.
        """
        if channel is not None and prefix is not None:
            raise ValueError("is_present takes a channel or a prefix, not both.")
        if channel is not None:
            check_channel_name(channel)
        if prefix is not None:
            check_prefix(prefix)
        expressions = expressions_for(current_app, _current().backend, user_id, "is_present")
        return expressions.is_present(user_id, channel=channel, prefix=prefix)

    def last_seen_at(self, user_id: Any) -> Any:
        """An SQL expression: when was the user of this id last seen?

        An aware datetime in UTC by the database's clock, to select, compare and order by: now for
        who is present, ``NULL`` for who was never seen, or longer than
        ``PRESENCE_LAST_SEEN_RETENTION`` ago. PostgreSQL puts ``NULL`` first in descending order,
        unless told ``.desc().nulls_last()``. It is looked up for each row: to order by it, narrow
        a table of a million users first. Else as `is_present`.

        :raises RuntimeError: presence is not kept in an SQL database, or is in another one.
        :raises TypeError: the column's type does not tell the users' ids.
        """
        expressions = expressions_for(current_app, _current().backend, user_id, "last_seen_at")
        return expressions.last_seen_at(user_id)

    def last_seen(self, users: Iterable[Any]) -> dict[str, datetime | None]:
        """When users were last seen in any channel, by their ids, in UTC by the store's clock.

        It is now for who is present. ``None``: never, or longer than
        ``PRESENCE_LAST_SEEN_RETENTION`` ago.

        :param users: users or their ids; many at once cost little more than one.
        :raises TypeError: that is one user, not several.
        """
        if isinstance(users, str) or not isinstance(users, Iterable):
            raise TypeError(f"last_seen takes several users, such as [user], not {users!r}.")
        ids = dict.fromkeys(user_id_of(user) for user in users)
        return _current().backend.last_seen(list(ids))

    def clear(self) -> list[Change]:
        """Take everyone out of every channel; the revisions go on."""
        return _current().tracker.clear()

    def evict(self, user: Any, channel: str | None = None) -> list[Change]:
        """A user out of one channel or all, subscriptions too, in every process; no ban.

        :raises ValueError: that is no user, or no channel name.
        """
        if channel is not None:
            check_channel_name(channel)
        return _current().tracker.commands.evict(channel, user_id=user_id_of(user))

    def reload(self, user: Any) -> None:
        """Who they are has changed: their connections are renewed, identity loaded anew."""
        _current().tracker.commands.reload(user_id_of(user))

    def forget_config(self, name: str | None = None) -> None:
        """Drop the cached config of one channel, or of all, in every process.

        :raises ValueError: that is no channel name.
        """
        if name is not None:
            check_channel_name(name)
        _current().tracker.commands.forget_config(name)

    def touch(self, client_id: str) -> None:
        """A sign of life of a client, in every channel that it is in."""
        check_id(client_id, "client id")
        _current().tracker.touch_client(client_id)

    def leave_all(self, client_id: str) -> list[Change]:
        """A client out of every channel that it is in; one that is connected is evicted."""
        check_id(client_id, "client id")
        return _current().tracker.commands.evict_client_everywhere(client_id)

    def prune(self) -> list[Change]:
        """End all that is due."""
        return _current().tracker.prune()

    def prune_channels(self) -> int:
        """Forget channels that have long been empty, and how many those were."""
        return _current().tracker.prune_channels()

    def drain(self) -> None:
        """This worker stops: call it from the server's exit hook.

        Its members get a deadline ``PRESENCE_WORKER_TIMEOUT`` ahead, so that whoever reconnects
        elsewhere was never seen leaving; later disconnects change nothing.
        """
        _current().tracker.drain()

    def state_of(self, names: str | Sequence[str]) -> Any:
        """The wire form of a channel's state for the request's user; ``None`` where not viewable.

        For a list of names, a dict with one for each.
        """
        if isinstance(names, str):
            return self._forms([names])[names]
        return self._forms(names)

    def _forms(self, names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        state = _current()
        identity = self._hooks.load(None, max_info_bytes=state.settings.max_meta_bytes)
        return state.tracker.states.forms(names, identity)

    def _identify(self, user: Any) -> Identity:
        return self._hooks.identify(user, max_info_bytes=_current().settings.max_meta_bytes)


def _current() -> AppPresence:
    state = current_app.extensions.get("presence")
    if state is None:
        raise RuntimeError("Presence is not set up on this app: call presence.init_app(app).")
    return state  # type: ignore[no-any-return]  # extensions is a dict of Any


def _flask_login_user(auth: Any) -> Any:
    """Flask-Login's current user, where the app uses Flask-Login."""
    if not hasattr(current_app, "login_manager"):
        return None
    from flask_login import current_user

    return current_user._get_current_object() if current_user.is_authenticated else None


def _begin_in_request() -> None:
    """A process that serves requests has background work; a script or a task queue has none."""
    if has_request_context():
        _current().tracker.start()


def _with_backend(app: Flask, backend: str | Backend | None) -> dict[str, Any]:
    return dict(app.config) | ({} if backend is None else {"PRESENCE_BACKEND": backend})


def _warn_of_open_door(server: Any) -> None:
    if is_open_to_all(server.eio) and server.eio.cors_credentials:
        log.warning(
            "cors_allowed_origins=%r with cookies: any web page can be present as the users of "
            "this app. Name the origins, or tell users by a token in auth.",
            server.eio.cors_allowed_origins,
        )


def _begin_anew_after_fork(state: AppPresence) -> None:
    reference = weakref.ref(state)

    def begin_anew() -> None:
        state = reference()
        if state is not None:
            state.jobs.reset()
            state.tracker.after_fork()

    os.register_at_fork(after_in_child=begin_anew)
