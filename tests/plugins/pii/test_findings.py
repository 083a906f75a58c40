from plugins.pii.findings import Finding, settled

RANK = {"email": 0, "secret": 1, "phone": 2}.__getitem__


def test_the_longest_wins_then_the_more_specific():
    long, short, beside = Finding(0, 9, "secret"), Finding(2, 6, "email"), Finding(9, 12, "phone")
    assert settled([short, beside, long], RANK) == [long, beside]
    assert settled([Finding(0, 4, "phone"), Finding(0, 4, "email")], RANK) == [Finding(0, 4, "email")]
    assert settled([], RANK) == []


def test_what_overlaps_only_a_loser_stays():
    first, middle, last = Finding(0, 10, "secret"), Finding(8, 14, "email"), Finding(13, 18, "phone")
    assert settled([first, middle, last], RANK) == [first, last]
