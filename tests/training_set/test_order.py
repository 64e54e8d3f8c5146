import hashlib

import numpy as np
import pyarrow as pa
import pytest

from caploom.errors import StoreError
from caploom.training_set.order import digest_column, digest_words, digests_of, image_digests, image_ids, order_keys

IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(300)]


def test_digests_are_the_bytes_that_the_digits_spell():
    digests = image_digests(pa.array(IDS))
    assert [bytes(digest) for digest in digests] == [bytes.fromhex(each) for each in IDS]
    assert image_ids(digests).to_pylist() == IDS
    assert image_digests(pa.array(["-", *IDS]).slice(5, 7)).tobytes() == b"".join(map(bytes.fromhex, IDS[4:11]))
    assert digests_of(digest_column(digests).slice(3, 2)).tobytes() == digests[3:5].tobytes()
    assert len(image_digests(pa.array([], pa.string()))) == 0


def test_an_identity_that_is_no_sha_256_is_refused():
    with pytest.raises(StoreError, match="image_id that is not a SHA-256"):
        image_digests(pa.array([IDS[0], "0123"]))


def test_words_sort_as_the_digits_do():
    words = digest_words(image_digests(pa.array(IDS)))
    by_words = sorted(range(len(IDS)), key=lambda row: tuple(words[row].tolist()))
    assert [IDS[row] for row in by_words] == sorted(IDS)


def test_keys_are_split_mix_of_the_seed_and_the_first_sixteen_digits():
    def split_mix(value):  # the published constants, in Python's own integers
        limit = 2**64 - 1
        value = (value + 0x9E3779B97F4A7C15) & limit
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & limit
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & limit
        return value ^ (value >> 31)

    first = digest_words(image_digests(pa.array(IDS)))[:, 0]
    for seed in (0, 7):
        expected = [split_mix(int(each[:16], 16) ^ split_mix(seed)) for each in IDS]
        assert order_keys(first, seed).tolist() == expected
    assert split_mix(0) == 0xE220A8397B1DCDAF  # the generator's first number from the state 0, as published
    assert np.argsort(order_keys(first, 0)).tolist() != np.argsort(order_keys(first, 7)).tolist()
