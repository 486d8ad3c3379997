"""Workers killed under chats: nobody waits for ever, is told something wrong, or notices before its first byte."""

import json

import pytest

from tests.chaos.chats import Tally, stormed


def held(tally: Tally) -> None:
    said = json.dumps(tally.figures, indent=1)
    assert tally.wrong == [], said
    assert tally.failed == [], said
    assert tally.of["hung"] == 0, said
    assert tally.of["whole"] > 0, said
    assert tally.of["streamed"] > 0, said
    print(said)


@pytest.mark.slow
def test_a_short_storm_over_chats(tmp_path):
    tally = stormed(3, kills=3, requests=60, logs=tmp_path)
    held(tally)
    assert tally.kills == 3


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_twenty_kills_over_five_hundred_requests(tmp_path):
    tally = stormed(1, kills=20, requests=500, logs=tmp_path)
    held(tally)
    assert tally.kills == 20
    assert tally.requests >= 500
    assert tally.of["cut, and said so"] > 0, "no kill met a stream"
