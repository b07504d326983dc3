"""Who somebody is: the app's hooks, and the plain values that are kept of what they say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from .errors import BadRequest
from .model import ANONYMOUS, NO_GROUPS, Identity
from .protocol import check_id, dump_object

log = logging.getLogger(__name__)


def user_id_of(user: Any) -> str:
    """The id of a user: ``user.get_id()``, else ``user.id``, else the value itself.

    :raises ValueError: it has none, or one that is empty, too long or has control characters.
    """
    value = user
    if callable(getattr(user, "get_id", None)):
        value = user.get_id()
    elif not isinstance(user, UUID) and hasattr(user, "id"):
        value = user.id
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
        raise ValueError(
            f"{type(user).__name__} is no user: it needs get_id() or an id that is a str, int or "
            f"UUID, or be one itself; the id found is {value!r}."
        )
    return check_id(str(value), "user id")


class Hooks:
    """What the app registered to tell who a user is."""

    def __init__(self, load_user: Callable[[Any], Any]) -> None:
        self.load_user = load_user
        self.info: Callable[[Any], Any] = lambda user: {}
        self.groups: Callable[[Any], Iterable[Any]] = lambda user: ()

    def load(self, auth: Any, *, max_info_bytes: int) -> Identity:
        """Who the current request's user is. What the loader raises is the caller's affair."""
        return self.identify(self.load_user(auth), max_info_bytes=max_info_bytes)

    def identify(self, user: Any, *, max_info_bytes: int) -> Identity:
        """The identity of a user object; of ``None`` the anonymous one."""
        if user is None or not getattr(user, "is_authenticated", True):
            return ANONYMOUS
        user_id = user_id_of(user)
        return Identity(
            user_id, self._info_of(user, user_id, max_info_bytes), self._groups_of(user, user_id)
        )

    def _info_of(self, user: Any, user_id: str, max_bytes: int) -> str:
        try:
            return dump_object(self.info(user), what="user_info", max_bytes=max_bytes)
        except BadRequest as error:
            log.error("The info of user %s is left out: %s", user_id, error)
        except Exception:
            log.exception("user_info raised for user %s", user_id)
        return "{}"

    def _groups_of(self, user: Any, user_id: str) -> frozenset[str]:
        try:
            groups = self.groups(user)
            if isinstance(groups, (str, bytes)):
                raise TypeError(f"user_groups must return an iterable of ids, not {groups!r}")
            return frozenset(map(str, groups)) or NO_GROUPS
        except Exception:
            log.exception("user_groups raised for user %s", user_id)
        return NO_GROUPS
