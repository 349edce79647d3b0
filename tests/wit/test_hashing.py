"""Hashes are the published ones, ids keep their order, priorities are uniform."""

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from wit import hashing


@given(st.lists(st.text(max_size=80) | st.just("x" * 500), max_size=20), st.integers(0, 5))
def test_hash64_is_xxh64_of_the_utf8_bytes_also_of_slices(strings, skip):
    array = pa.array(strings, pa.string())
    expected = [xxhash.xxh64_intdigest(s.encode()) for s in strings]
    assert hashing.hash64(array).tolist() == expected
    assert hashing.hash64(array.slice(skip)).tolist() == expected[skip:]
    assert hashing.hash64(pa.chunked_array([array, array])).tolist() == expected * 2
    assert hashing.hash64(array.cast(pa.large_string())).tolist() == expected


def test_a_null_hashes_as_the_empty_string():
    both = hashing.hash64(pa.array([None, ""], pa.string()))
    assert both[0] == both[1] == xxhash.xxh64_intdigest(b"")


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=20))
def test_pair_ids_sort_as_their_hashes_and_give_them_back(pairs):
    url = np.array([u for u, _ in pairs], np.uint64)
    text = np.array([t for _, t in pairs], np.uint64)
    ids = hashing.pair_ids(url, text)
    assert sorted(ids.to_pylist()) == [
        u.to_bytes(8, "big") + t.to_bytes(8, "big") for u, t in sorted(pairs)
    ]
    back = hashing.pair_hashes(pa.chunked_array([ids, ids]))
    assert back[0].tolist() == url.tolist() * 2
    assert back[1].tolist() == text.tolist() * 2


def test_priorities_are_uniform_and_differ_from_query_to_query():
    n, seed, text = 20_000, np.uint64(1), np.uint64(7)
    keys = [hashing.pair_key(seed, np.uint64(i), text) for i in range(n)]
    places = np.array([[hashing.priority(k, np.uint64(q)) for q in (3, 4)] for k in keys])
    places = places.astype(np.float64) / 2.0**64
    counts = np.histogram(places[:, 0], 20, (0, 1))[0]
    assert np.sum((counts - n / 20) ** 2 / (n / 20)) < 50  # chi-square, 19 degrees: p < 1e-4
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.03


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 5000))
def test_slots_keep_the_order_of_the_hashes(hashes, slots):
    ordered = np.sort(np.array(hashes, np.uint64))
    found = hashing.slots_of(ordered, slots)
    assert found.min() >= 0
    assert found.max() < slots
    assert np.all(np.diff(found) >= 0)
