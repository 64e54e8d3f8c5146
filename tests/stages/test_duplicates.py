"""Near-duplicates and leakage on pictures that are really re-encoded, resized and copied."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from caploom.config.factory import Factory
from caploom.config.factory_config import parse_config
from caploom.errors import TrainingError
from caploom.questions.status.factory_status import State, factory_status
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.records import image_identity
from caploom.storage.tables import read_table
from caploom.training_set.hamming import pairs_between, pairs_within
from caploom.training_set.write import training_files


def photo(seed: int) -> Image.Image:
    """A picture with structure at all scales, as photographs have."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)).resize((160, 160)), np.float64
        )
        for side in (3, 6, 12, 40)
    ]
    mixed = sum(layer * weight for layer, weight in zip(layers, (0.5, 0.25, 0.15, 0.1), strict=True))
    return Image.fromarray(mixed.astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


class Sources:
    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, images: dict[str, bytes]) -> dict[str, str]:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        for image, data in images.items():
            (folder / image).write_bytes(data)
        rows = [{"image": image, "caption": f"what {image} shows"} for image in images]
        (folder / "captions.json").write_text(json.dumps(rows))
        return {"reader": "image_captions", "root": name, "captions": f"{name}/captions.json"}

    def factory(self, training: dict[str, bytes], evaluation: dict[str, bytes], **duplicates) -> Factory:
        config = {
            "name": "leaky",
            "store": "store",
            "pairs": self.write("training", training),
            "trainers": {"tiny": {"model": "picture-book", "steps": 2, "batch_size": 4}},
            "evaluation_sets": {"held-out": self.write("held-out", evaluation)},
            "recipes": {"raw-only": {"captioners": []}},
            "duplicates": duplicates,
        }
        made = Factory.from_config(parse_config(config, base=self.root, source="leaky.yaml"))
        for shard in create_new_shards(made):
            ingest_shard(made, shard)
        shear_recipe(made, made.config.recipe("raw-only"))
        return made


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def merged(factory: Factory):
    return merge_training_set(factory, factory.config.recipe("raw-only"))


def names(training_set) -> set[str]:
    return {name for file in training_files(training_set) for name in read_table(file)["image"].to_pylist()}


TRAINING = {f"{seed}.png": encoded(photo(seed)) for seed in range(6)}


def test_pictures_of_an_evaluation_set_are_left_out_by_default(sources):
    shown = {"copy.png": TRAINING["0.png"], "smaller.jpg": encoded(photo(1).resize((80, 80)), "JPEG", quality=80)}
    made = merged(sources.factory(TRAINING, {**shown, "other.png": encoded(photo(99))}))
    assert names(made) == {"2.png", "3.png", "4.png", "5.png"}
    assert made.manifest.rows.reasons == {"in_evaluation_set": 1, "near_evaluation_image": 1}
    found = made.manifest.summary["duplicates"]
    assert found["excluded"] == {"in_evaluation_set": 1, "near_evaluation_image": 1}
    assert ["in_evaluation_set", *[image_identity(TRAINING["0.png"])] * 2] in found["examples"]


def test_marked_ones_stay_and_are_counted(sources):
    made = merged(sources.factory(TRAINING, {"copy.png": TRAINING["0.png"]}, leakage="mark"))
    assert names(made) == set(TRAINING)
    assert made.manifest.summary["duplicates"]["found"] == {"in_evaluation_set": 1}
    assert made.manifest.summary["duplicates"]["excluded"] == {}


def test_switched_off_nothing_is_looked_for(sources):
    factory = sources.factory(TRAINING, {"copy.png": TRAINING["0.png"]}, leakage="off", near="off")
    assert merged(factory).manifest.summary["duplicates"]["found"] == {}
    assert factory.store.list("leakage") == factory.store.list("near_duplicates") == []


def test_of_pictures_alike_the_largest_stays(sources):
    alike = {"big.png": encoded(photo(0)), "small.jpg": encoded(photo(0).resize((100, 100)), "JPEG", quality=75)}
    plain = {f"{grey}.png": encoded(Image.new("RGB", (50, 50), (grey,) * 3)) for grey in (0, 128, 250)}
    factory = sources.factory(
        {**alike, **plain, "other.png": encoded(photo(1))}, {"e.png": encoded(photo(9))}, near="exclude"
    )
    assert names(merged(factory)) == {"big.png", "other.png", *plain}  # plain colours are like nothing
    (found,) = factory.store.list("near_duplicates")
    assert found.manifest.summary == {"images": 6, "duplicates": 1, "without_hash": 3}


def test_a_new_evaluation_set_without_common_pictures_makes_nothing_stale(sources):
    factory = sources.factory(TRAINING, {"e.png": encoded(photo(9))})
    before = merged(factory)
    again = sources.factory(TRAINING, {"e.png": encoded(photo(10)), "f.png": encoded(photo(11))})
    assert merged(again).manifest.address == before.manifest.address
    leaky = sources.factory(TRAINING, {"leaks.png": TRAINING["3.png"]})
    assert merged(leaky).manifest.address != before.manifest.address


def test_status_knows_what_was_left_out(sources):
    factory = sources.factory(TRAINING, {"copy.png": TRAINING["0.png"]})
    merged(factory)
    (slot,) = (slot for slot in factory_status(factory).slots if slot.asset == "training_set")
    assert slot.state is State.CURRENT


def test_an_evaluation_set_that_is_not_there_is_said(sources):
    factory = sources.factory(TRAINING, {"e.png": encoded(photo(9))})
    (sources.root / "held-out" / "captions.json").unlink()
    with pytest.raises(TrainingError, match=r"evaluation set held-out cannot be told: .*no such file.*leakage` to off"):
        merged(factory)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("size", [80, 160])
def test_a_copy_that_was_encoded_again_is_near_and_another_picture_is_not(quality, size):
    from caploom.images.check import check_image

    def distance(one: bytes, other: bytes) -> int:
        return (check_image(one, "one").phash ^ check_image(other, "other").phash).bit_count()

    for seed in range(5):
        again = encoded(photo(seed).resize((size, size)), "JPEG", quality=quality)
        assert distance(encoded(photo(seed)), again) <= 4
        assert distance(encoded(photo(seed)), encoded(photo(seed + 100))) > 12
        blurred = encoded(photo(seed).filter(ImageFilter.GaussianBlur(1)), "JPEG", quality=quality)
        assert distance(encoded(photo(seed)), blurred) <= 4


_CHANGES = st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=9)), max_size=12)
_HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    _HASHES,
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=9)), max_size=12),
    st.integers(0, 8),
)
def test_no_pair_is_missed(base, changes, distance):
    hashes = list(base)
    for place, bits in changes:
        flipped = hashes[place % len(hashes)]
        for bit in bits:
            flipped ^= 1 << bit
        hashes.append(flipped)
    array = np.array(hashes, np.uint64)
    expected = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (hashes[i] ^ hashes[j]).bit_count() <= distance
    }
    found = {
        pair
        for each in pairs_within(array, distance)
        for pair in zip(each.left.tolist(), each.right.tolist(), strict=True)
    }
    assert found == expected
    half = len(hashes) // 2
    across = {
        pair
        for each in pairs_between(array[:half], array[half:], distance)
        for pair in zip(each.left.tolist(), (each.right + half).tolist(), strict=True)
    }
    assert across == {(i, j) for i, j in expected if i < half <= j}
