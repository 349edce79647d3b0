"""Every link in one reason, every fault counted, the first thousand listed."""

import pytest

from pipeline.tally import FAULTS, LISTED_FAULTS, REASONS, SEEN, Tally


def test_a_reason_that_is_not_known_is_refused():
    tally = Tally()
    with pytest.raises(KeyError, match="no_such_reason"):
        tally.add("no_such_reason")
    with pytest.raises(KeyError):
        tally.fault(0, "no_text")


def test_names_are_distinct_and_described():
    assert not set(REASONS) & set(FAULTS)
    assert all(text.endswith(".") for text in (REASONS | SEEN | FAULTS).values())


def test_moving_links_keeps_their_sum_and_never_goes_below_nothing():
    tally = Tally()
    tally.see("images", 3)
    tally.add("extracted", 3)
    tally.move("extracted", "no_query", 2)
    assert tally.counts == {"extracted": 1, "no_query": 2}
    assert tally.unaccounted == 0
    with pytest.raises(ValueError, match="2 of extracted"):
        tally.move("extracted", "no_query", 2)


def test_faults_beyond_the_listed_ones_are_counted():
    tally = Tally()
    for offset in range(LISTED_FAULTS + 5):
        tally.fault(offset, "bad_record")
    assert tally.fault_total == LISTED_FAULTS + 5
    assert len(tally.faults) == LISTED_FAULTS
    assert tally.faults[-1] == (LISTED_FAULTS - 1, "bad_record")


def test_json_gives_the_same_tally_and_merging_adds():
    tally = Tally()
    tally.see("images", 2)
    tally.add("no_text")
    tally.add("extracted")
    tally.fault(None, "bad_block")
    again = Tally.from_json({**tally.to_json(), "source": "x", "rows": 1})
    assert again.to_json() == tally.to_json()
    again.merge(tally)
    assert again.counts == {"no_text": 2, "extracted": 2}
    assert again.seen == {"images": 4}
    assert again.faults == [(None, "bad_block")] * 2
    assert again.unaccounted == 0
