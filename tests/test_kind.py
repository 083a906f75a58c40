"""What a policy may do after each kind of fault; a new kind has to be entered here."""

import pytest

from proxy.kind import Kind

AGAIN, MOVE, HARM = "again", "move", "harm"

POLICY = {
    Kind.UNREACHABLE: {AGAIN, MOVE, HARM},
    Kind.SERVER_ERROR: {AGAIN, MOVE, HARM},
    Kind.OVERLOADED: {AGAIN, MOVE, HARM},
    Kind.BROKEN: {AGAIN, MOVE, HARM},
    Kind.RATE_LIMITED: {AGAIN, MOVE},
    Kind.BUSY: {AGAIN, MOVE},
    Kind.LOADING: {AGAIN, MOVE},
    Kind.TIMEOUT: {MOVE, HARM},
    Kind.SLOW: {MOVE, HARM},
    Kind.LATE: {MOVE},
    Kind.DROPPED: {HARM},
    Kind.QUOTA: {MOVE},
    Kind.REFUSED: {MOVE},
    Kind.UNSUPPORTED: {MOVE},
    Kind.CONTEXT_LENGTH: {MOVE},
    Kind.TOO_LARGE: {MOVE},
    Kind.CONTENT_FILTER: set(),
    Kind.CLIENT: set(),
    Kind.CLIENT_GONE: set(),
    Kind.OURS: set(),
}


@pytest.mark.parametrize("kind", Kind)
def test_what_may_follow(kind: Kind) -> None:
    may = {AGAIN: kind.is_transient, MOVE: kind.may_move, HARM: kind.is_upstreams}
    assert {what for what, is_so in may.items() if is_so} == POLICY[kind]
