"""Finds a channel's config just in time, by its rule or else its prefix, and remembers it."""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, RequestRedirect, Rule

from ..errors import ChannelNotFound, ChannelUnavailable, InvalidChannelConfig
from ..protocol import is_channel_name
from .config import ChannelConfig

log = logging.getLogger(__name__)

Callback = Callable[..., "ChannelConfig | None"]

CACHE_SIZE = 10_000
NOT_FOUND_SECONDS = 10.0

_PREFIX = re.compile(r"[a-zA-Z0-9_-]+")
_RULE = re.compile(r"/[a-zA-Z0-9_-]+/.+")


class Rules:
    """The callbacks that configure channels, as they were registered."""

    def __init__(self) -> None:
        self._map = Map(strict_slashes=False, merge_slashes=False, redirect_defaults=False)
        self._rules: dict[str, Callback] = {}
        self._prefixes: dict[str, Callback] = {}
        self._matcher: Any = None

    def add(self, rule: str, callback: Callback) -> None:
        """Register a callback for a routing rule, or for a bare prefix.

        :raises ValueError: it is neither, or it is there already.
        """
        self.check(rule)
        if _PREFIX.fullmatch(rule):
            self._prefixes[rule] = callback
            return
        try:
            self._map.add(Rule(rule, endpoint=rule))
            self._map.update()
        except (ValueError, LookupError, TypeError, SyntaxError) as error:
            raise ValueError(f"channel_config {rule!r} is no routing rule: {error}") from error
        self._rules[rule] = callback
        self._matcher = self._map.bind("presence")

    def check(self, rule: Any) -> None:
        """See whether a rule or a prefix may be registered, before there is a callback for it.

        :raises ValueError: it has neither's form, or it is there already.
        """
        if not isinstance(rule, str):
            raise ValueError(
                f"channel_config takes a rule or a prefix, not {rule!r}: write "
                '@presence.channel_config("/topic/<int:topic_id>").'
            )
        if rule in self._rules or rule in self._prefixes:
            raise ValueError(f"channel_config {rule!r} is registered twice.")
        if not (_PREFIX.fullmatch(rule) or _RULE.fullmatch(rule)):
            raise ValueError(
                f"channel_config {rule!r} is neither a bare prefix of letters, digits, '_' and "
                "'-', such as 'site', nor a rule with one in front, such as "
                "'/topic/<int:topic_id>'."
            )

    def find(self, name: str) -> Callable[[], Any] | None:
        """The callback for a channel, with the arguments that it takes."""
        found = self._match(name)
        if found is not None:
            return found
        callback = self._prefixes.get(name.split("/", 2)[1])
        return None if callback is None else partial(callback, name)

    def _match(self, name: str) -> Callable[[], Any] | None:
        if self._matcher is None:
            return None
        try:
            rule, values = self._matcher.match(name, method="GET")
            # A converter may take more than one spelling; only the one that it builds counts.
            built = next(self._map.iter_rules(rule)).build(values)
        except (RequestRedirect, HTTPException, ValueError):
            return None
        if built is None or unquote(built[1]) != name:
            return None
        return partial(self._rules[rule], **values)


class _Cached(NamedTuple):
    config: ChannelConfig | None
    until: float


class Registry:
    """One app's view of the rules, with its cache.

    :param call: calls a callback where the app is at hand and no request is.
    :param cache_seconds: how long a config is remembered.
    :param heartbeat_interval: a channel's timeout must be above it.
    :param explains: whether the log is to say why there is no channel, as a developer would like.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        call: Callable[[Callable[[], Any]], Any],
        cache_seconds: float,
        heartbeat_interval: float,
        explains: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._call = call
        self._cache_seconds = cache_seconds
        self._heartbeat_interval = heartbeat_interval
        self._explains = explains
        self._clock = clock
        self.at_most = math.inf
        """Seconds for which anything is remembered at the most, whatever ``cache_seconds`` says."""
        self.reset()

    def reset(self) -> None:
        """Begin with an empty cache."""
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._generation = 0

    def resolve(self, name: str) -> ChannelConfig:
        """The channel's config.

        :raises ChannelNotFound: there is no such channel.
        :raises ChannelUnavailable: its callback raised.
        :raises InvalidChannelConfig: its callback gave something else than a config.
        """
        cached = self._cached(name)
        config = cached.config if cached is not None else self._load(name)
        if config is None:
            raise ChannelNotFound(name)
        return config

    def forget(self, name: str | None = None) -> None:
        """Drop one config from the cache, or all of them."""
        with self._lock:
            self._generation += 1
            if name is None:
                self._cache.clear()
            else:
                self._cache.pop(name, None)

    def _cached(self, name: str) -> _Cached | None:
        with self._lock:
            cached = self._cache.get(name)
            if cached is None or cached.until <= self._clock():
                return None
            self._cache.move_to_end(name)
            return cached

    def _load(self, name: str) -> ChannelConfig | None:
        generation = self._generation
        found = self._rules.find(name) if is_channel_name(name) else None
        if found is None:
            self._explain(name)
            return None
        config = self._ask(name, found)
        seconds = min(self._cache_seconds, self.at_most)
        if config is None:
            seconds = min(seconds, NOT_FOUND_SECONDS)
        with self._lock:
            # A config that was read before everybody was told to forget it is not kept.
            if seconds and generation == self._generation:
                self._cache[name] = _Cached(config, self._clock() + seconds)
                self._cache.move_to_end(name)
                while len(self._cache) > CACHE_SIZE:
                    self._cache.popitem(last=False)
        return config

    def _explain(self, name: Any) -> None:
        if not self._explains():
            return  # In production, whoever likes could fill the log.
        if is_channel_name(name):
            log.warning("There is no channel %r: no channel_config fits it.", name)
        else:
            log.warning("There is no channel %r: a name looks like '/prefix/rest'.", name)

    def _ask(self, name: str, callback: Callable[[], Any]) -> ChannelConfig | None:
        try:
            return self._checked(name, self._call(callback))
        except InvalidChannelConfig:
            log.exception("The channel_config callback for %s made an invalid config", name)
            raise
        except Exception as error:
            log.exception("The channel_config callback for %s raised", name)
            raise ChannelUnavailable(f"The configuration of {name} failed.") from error

    def _checked(self, name: str, config: Any) -> ChannelConfig | None:
        if config is None:
            return None
        if not isinstance(config, ChannelConfig):
            raise InvalidChannelConfig(
                f"The channel_config callback for {name} must return a ChannelConfig or None, "
                f"not {type(config).__name__}."
            )
        if config.timeout is not None and config.timeout <= self._heartbeat_interval:
            raise InvalidChannelConfig(
                f"The timeout of {name} ({config.timeout:g} s) must be above "
                f"PRESENCE_HEARTBEAT_INTERVAL ({self._heartbeat_interval:g} s)."
            )
        return config
