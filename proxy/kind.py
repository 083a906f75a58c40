"""What was wrong with an attempt; the three properties are what policies build on."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The comments say what a name does not."""

    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    LOADING = "loading"  # its model is still being loaded, or it is being started
    BROKEN = "broken"  # the answer is no HTTP, is empty, or ended before it was complete
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"  # a conflict with another request, or no connection of ours is free
    TIMEOUT = "timeout"
    SLOW = "slow"  # no token within the time that a hold gave
    LATE = "late"  # what was left of its request's deadline was less than the target's own limits give it
    DROPPED = "dropped"
    QUOTA = "quota"  # what was paid for is used up
    REFUSED = "refused"  # the credential, in most cases ours, is not accepted
    UNSUPPORTED = "unsupported"  # the target has no such model, or no such route
    CONTEXT_LENGTH = "context_length"
    TOO_LARGE = "too_large"  # in bytes, or for one minute's tokens, whatever the model could take
    CONTENT_FILTER = "content_filter"
    CLIENT = "client"
    CLIENT_GONE = "client_gone"
    OURS = "ours"

    __hash__ = str.__hash__

    @property
    def is_transient(self) -> bool:
        """Whether the same target may serve when it is asked again, after what it told to wait.

        Not one that was silent up to a limit: each further try would cost as much time.
        """
        return self in _TRANSIENT

    @property
    def may_move(self) -> bool:
        """Whether another target may serve. Not after DROPPED: the work may be done, so `replay_safe` decides."""
        return self in _MOVING

    @property
    def is_upstreams(self) -> bool:
        """Whether it harms the target's standing; a rate limit, a quota or a refusal does not: they are answers."""
        return self in _UPSTREAMS


_FAILURES = frozenset({Kind.UNREACHABLE, Kind.SERVER_ERROR, Kind.OVERLOADED, Kind.BROKEN})
_SILENCES = frozenset({Kind.TIMEOUT, Kind.SLOW})
_TRANSIENT = _FAILURES | {Kind.RATE_LIMITED, Kind.BUSY, Kind.LOADING}
_ANSWERS = frozenset({Kind.QUOTA, Kind.REFUSED, Kind.UNSUPPORTED, Kind.CONTEXT_LENGTH, Kind.TOO_LARGE})
_MOVING = _TRANSIENT | _SILENCES | _ANSWERS | {Kind.LATE}
_UPSTREAMS = _FAILURES | _SILENCES | {Kind.DROPPED}
