"""What a callback says of a channel."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidChannelConfig


@dataclass(frozen=True, slots=True)
class ChannelConfig:
    """Who may be in a channel, and how it behaves. By itself it lets nobody in but the server.

    :param public: anyone may view, every user may enter.
    :param allowed_user_ids: users who may view and enter; compared as strings.
    :param allowed_group_ids: groups whose users may view and enter; compared as strings.
    :param count_only: identities never leave the server, the count does.
    :param anonymous: clients without a user may enter where they may view; counted apart.
    :param max_users: one user more is refused.
    :param timeout: seconds a client may be silent, instead of ``PRESENCE_TIMEOUT``.
    :raises InvalidChannelConfig: a value makes no sense.
    """

    public: bool = False
    allowed_user_ids: Iterable[Any] | None = None
    allowed_group_ids: Iterable[Any] | None = None
    count_only: bool = False
    anonymous: bool = False
    max_users: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        for name in ("allowed_user_ids", "allowed_group_ids"):
            object.__setattr__(self, name, _as_strings(name, getattr(self, name)))
        for name in ("public", "count_only", "anonymous"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidChannelConfig(
                    f"{name} must be True or False, not {getattr(self, name)!r}."
                )
        if self.max_users is not None and not _is_whole(self.max_users):
            raise InvalidChannelConfig(
                f"max_users must be a whole number of at least 1 or None, not {self.max_users!r}."
            )
        if self.timeout is not None and not _is_positive(self.timeout):
            raise InvalidChannelConfig(
                f"timeout must be a positive number of seconds or None, not {self.timeout!r}."
            )


def _as_strings(name: str, ids: Any) -> frozenset[str] | None:
    if ids is None:
        return None
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidChannelConfig(f"{name} must be an iterable of ids or None, not {ids!r}.")
    return frozenset(map(str, ids))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0
