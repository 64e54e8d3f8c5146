import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from caploom.stages.duplicates import _duplicates
from caploom.training_set.hamming import first_alike


def one_after_another(hashes, distance):
    """The rule as it is said: by hand, in the order."""
    stays, found = [], []
    for place, each in enumerate(hashes):
        near = [other for other in stays if (each ^ hashes[other]).bit_count() <= distance]
        found.append(near[0] if near else place)
        if not near:
            stays.append(place)
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 99), st.sets(st.integers(0, 63), min_size=1, max_size=3)), max_size=40),
    st.integers(0, 6),
)
def test_chains_and_knots_are_settled_as_one_after_another(base, changes, distance):
    hashes = list(dict.fromkeys(base))
    for place, bits in changes:  # of any before, so that chains grow
        changed = hashes[place % len(hashes)]
        for bit in bits:
            changed ^= 1 << bit
        if changed not in (0, *hashes):
            hashes.append(changed)
    expected = one_after_another(hashes, distance)
    assert first_alike(np.array(hashes, np.uint64), distance).tolist() == expected
    # Each hash of two images, and two pictures without features: the same with images.
    images = np.array([0, 0, *(each for each in hashes for _ in range(2))], np.uint64)
    ids = np.array([f"{number:064x}" for number in range(len(images))])
    rows = {row["image_id"]: (row["duplicate_of"], row["distance"]) for row in _duplicates(ids, images, distance)}
    firsts = [2 + 2 * place for place in expected]
    assert rows == {
        ids[image]: (ids[firsts[place]], (hashes[place] ^ hashes[expected[place]]).bit_count())
        for place in range(len(hashes))
        for image in (2 + 2 * place, 3 + 2 * place)
        if image != firsts[place]
    }


def test_a_knot_of_thousands_takes_no_memory_that_grows_with_its_pairs():
    bits = np.uint64(1) << np.random.default_rng(0).integers(0, 64, (3_000, 3)).astype(np.uint64)
    knot = np.unique(np.uint64(2**40 - 1) ^ bits[:, 0] ^ bits[:, 1] ^ bits[:, 2])
    first_alike(knot[:10], 6)
    tracemalloc.start()
    alike = first_alike(knot, 6)  # each near each: four million pairs
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(alike) == {0}
    assert peak < 30 * 2**20
