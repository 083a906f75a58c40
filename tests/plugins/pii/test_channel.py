"""One text as it comes: pieces of it as they go on."""

from hypothesis import given
from hypothesis import strategies as st

from plugins.pii.channel import Channel, revised
from tests.plugins.pii.conversation import EMAIL, SIZES, answers, cut, known, named, prose


@given(prose(), SIZES, st.booleans())
def test_pieces_joined_are_the_whole(text: str, sizes: list[int], is_json: bool):
    sight = answers(known()).sight
    channel, pieces, at = Channel(sight, is_json=is_json), cut(text, sizes), 0
    for piece in pieces:
        channel.feed(piece)
    channel.finish()
    out = []
    for piece in pieces:
        out.append(channel.cut(at, piece))
        at += len(piece)
    assert channel.decided == channel.fed == len(text)
    assert "".join(out) == revised(sight, text, is_json=is_json)


def test_a_change_stands_in_the_piece_in_which_it_begins():
    made = known()
    name = named(made, EMAIL)
    channel = Channel(answers(made).sight, is_json=False)
    for piece in ("To ", name[:3], name[3:7], name[7:] + "!"):
        channel.feed(piece)
    channel.finish()
    assert [channel.cut(0, "To "), channel.cut(3, name[:3]), channel.cut(6, name[3:7])] == ["To ", EMAIL, ""]
    assert channel.cut(10, name[7:] + "!") == "!"
