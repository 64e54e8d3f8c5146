"""The buckets against a slow oracle: dictionaries and sorted tuples in Python."""

import hashlib
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caploom.errors import StoreError
from caploom.storage.records import PAIRS, SHEARED
from caploom.training_set.buckets import Buckets, word_counts
from caploom.training_set.order import digest_words, image_digests, order_keys

WORDS = ["a", "red", "ball", "日本", "“quoted”", "St. Peter's", "NaN", "🙂", "\n", "<b>"]


def identity(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def write_pairs(path, rows):
    """rows: (image_id, image, path, caption)."""
    table = [
        {"pair_id": f"{image_id}-{number}", "image_id": image_id, "image": image, "path": where, "raw_caption": caption}
        | {"width": 1, "height": 1, "row": number, "phash": 0}
        for number, (image_id, image, where, caption) in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=PAIRS), path)
    return path


def write_sheared(path, captioner, rows):
    """rows: (image_id, caption)."""
    schema = pa.schema([SHEARED.field(name) for name in ("image_id", "captioner", "caption", "words")])
    table = [
        {"image_id": image_id, "captioner": captioner, "caption": caption, "words": len(caption.split())}
        for image_id, caption in rows
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=schema), path)
    return captioner, path


def key(image_id, seed=0):
    return int(order_keys(digest_words(image_digests(pa.array([image_id])))[:, 0], seed)[0])


def oracle(pairs, sheared, seed=0):
    """Rows (image_id, source, place, caption, image, path) in their order, and how many were repeated and orphans."""
    images = {}
    for image_id, image, where, _ in pairs:
        images[image_id] = min(images.get(image_id, (where, image)), (where, image))
    said = [(image_id, "raw", 0, caption) for image_id, _, _, caption in pairs]
    said += [(image_id, name, 1, caption) for name, rows in sheared for image_id, caption in rows]
    known = [row for row in said if row[0] in images]
    rows = [(*row, *reversed(images[row[0]])) for row in set(known)]
    rows.sort(key=lambda row: (key(row[0], seed), row[0], row[2], row[1], row[3].encode()))
    return rows, len(known) - len(rows), len(said) - len(known)


def read(tmp_path, pairs, sheared, seed=0, shards=3, bucket_bytes=2**20):
    """The same rows by way of `shards` files each and buckets of that many bytes."""
    pair_files = [write_pairs(tmp_path / f"pairs-{i}.parquet", pairs[i::shards]) for i in range(shards)]
    sheared_files = [
        write_sheared(tmp_path / f"{name}-{i}.parquet", name, rows[i::shards])
        for name, rows in sheared
        for i in range(shards)
    ]
    names = ["image_id", "source", "place", "caption", "image", "path"]
    with Buckets(pair_files, sheared_files, tmp_path, seed=seed, bucket_bytes=bucket_bytes) as buckets:
        found = list(buckets)
        rows = [tuple(row[name] for name in names) for each in found for row in each.captions.to_pylist()]
        words = [row["words"] == len(row["caption"].split()) for each in found for row in each.captions.to_pylist()]
        assert all(words)
        assert [each.captions for each in found] == list(buckets.scan())
        assert sum(len(each.captions) + each.repeated + each.orphans for each in found) == buckets.rows_in
        return rows, sum(each.repeated for each in found), sum(each.orphans for each in found), buckets.count


def some(seed, images=200):
    """Images with several pairs and captions that come again; captions of images that nobody knows."""
    rng = random.Random(seed)

    def caption():
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 4)))

    pairs = [
        (identity(n), f"{n}-{copy}.jpg", f"/data/{rng.randint(0, 3)}/{n}.jpg", caption())
        for n in range(images)
        for copy in range(rng.choice([1, 1, 1, 5]))
    ]
    sheared = [
        (name, [(identity(n), caption()) for n in range(images + 5) for _ in range(rng.choice([0, 1, 1, 3]))])
        for name in ("zebra", "Ant", "cat-2")
    ]
    for part in (pairs, *(rows for _, rows in sheared)):
        rng.shuffle(part)
    return pairs, sheared


@pytest.mark.parametrize("seed", range(3))
def test_buckets_hold_what_a_slow_merge_gives(tmp_path, seed):
    pairs, sheared = some(seed)
    rows, repeated, orphans, _ = read(tmp_path, pairs, sheared, seed=seed)
    assert (rows, repeated, orphans) == oracle(pairs, sheared, seed)
    assert repeated > 0
    assert orphans > 0


def test_neither_shards_nor_buckets_nor_the_captioners_order_change_the_result(tmp_path):
    pairs, sheared = some(5)
    counts, results = set(), []
    for shards, bucket_bytes, captioners in ((1, 2**30, sheared), (4, 5_000, sheared[::-1]), (2, 300, sheared)):
        *result, count = read(tmp_path, pairs, captioners, shards=shards, bucket_bytes=bucket_bytes)
        counts.add(count)
        results.append(result)
    assert results[0] == results[1] == results[2]
    assert len(counts) == 3


def test_images_whose_first_sixteen_digits_are_the_same_stay_apart(tmp_path):
    alike = [identity(0)[:16] + identity(n)[16:] for n in range(40)]
    pairs = [(each, f"{n}.jpg", f"/{n}.jpg", f"raw {n}") for n, each in enumerate(alike[:30])]
    sheared = [("cat", [(each, f"said {n % 7}") for n, each in enumerate(alike)])]
    *result, _ = read(tmp_path, pairs, sheared)
    assert tuple(result) == oracle(pairs, sheared)
    assert result[2] == 10


def test_raw_captions_alone_and_no_captions_at_all(tmp_path):
    pairs = [(identity(n), f"{n}.jpg", f"/{n}.jpg", f"raw {n}") for n in range(5)]
    *result, _ = read(tmp_path, pairs, [])
    assert tuple(result) == oracle(pairs, [])
    assert read(tmp_path, [], [("cat", [])])[:3] == ([], 0, 0)


def test_a_very_long_caption_is_kept_whole(tmp_path):
    pairs = [(identity(n), f"{n}.jpg", f"/{n}.jpg", "é" * 1_000_000) for n in range(3)]
    *result, count = read(tmp_path, pairs, [], bucket_bytes=2**20)
    assert tuple(result) == oracle(pairs, [])
    assert count > 1 or pq.read_metadata(tmp_path / "pairs-0.parquet").row_group(0).total_byte_size < 2**18


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "pairs.parquet").write_bytes(b"no parquet")
    with pytest.raises(StoreError, match=r"pairs\.parquet: it cannot be read"):
        Buckets([tmp_path / "pairs.parquet"], [], tmp_path, seed=0)


def test_words_are_counted_between_blanks():
    texts = ["", " ", "one", " two  words\n", "日本 語", "\t\x01", "a b c", ""]
    assert word_counts(pa.array(texts)).tolist() == [0, 0, 1, 2, 2, 0, 3, 0]
    assert word_counts(pa.array(texts).slice(3, 2)).tolist() == [2, 2]
