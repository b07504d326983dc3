"""What can go wrong, one class for each way to react to it.

Every error carries the ``code`` under which a client on the wire learns of it.
"""

from __future__ import annotations


class PresenceError(Exception):
    """The base of all errors of this package."""

    code = "unavailable"
    retry_after: float | None = None

    @property
    def for_clients(self) -> str:
        """What a client is told: of a failure not where the store is, nor what it said."""
        if self.code == "unavailable":
            return "Presence is unavailable just now; try again in a moment."
        return str(self)


class ChannelNotFound(PresenceError):
    """No such channel, or one that may not be viewed: nobody is told which of the two."""

    code = "not_found"

    def __init__(self, channel: str) -> None:
        super().__init__(f"There is no channel {channel!r}.")


class ChannelUnavailable(PresenceError):
    """The callback that configures the channel raised; asking again later may help."""

    retry_after = 1.0


class InvalidChannelConfig(PresenceError, ValueError):
    """The callback of a channel gave something that is no usable ``ChannelConfig``."""

    retry_after = 1.0


class BackendUnavailable(PresenceError):
    """The store is not known to have done what was asked; repeating is harmless."""

    retry_after = 1.0


class AccessDenied(PresenceError):
    """This user may not enter the channel."""

    code = "not_found"


class LoginRequired(AccessDenied):
    """A client without a user may view the channel, but not enter it."""

    code = "login_required"


class ChannelFull(PresenceError):
    """The channel has its ``max_users``."""

    code = "channel_full"


class TooManyChannels(PresenceError):
    """The client is in, or subscribed to, as many channels as one client may be."""

    code = "too_many_channels"


class NotPresent(PresenceError):
    """The client is not in the channel."""

    code = "not_present"


class BadRequest(PresenceError, ValueError):
    """What arrived is not of the form that the protocol asks for."""

    code = "bad_request"


class RateLimited(PresenceError):
    """The connection sent more operations than it may; ``retry_after`` is in seconds."""

    code = "rate_limited"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"Too many operations; try again in {retry_after:.1f} s.")
        self.retry_after = retry_after


class ClientIdTaken(PresenceError, ValueError):
    """A client id that is in the channel belongs to another user."""

    code = "bad_request"


class WorkerGone(PresenceError):
    """The store holds no lease for this worker any more, so it may hold no members."""

    retry_after = 1.0
