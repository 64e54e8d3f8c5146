import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caploom.errors import StoreError, TrainingError
from caploom.images.decode import ImageFault
from caploom.stages import resized_images as resized
from caploom.stages.raw_pairs import ingest_shard, read_pairs
from caploom.stages.resized_images import resized_images
from caploom.stages.shards import create_new_shards, shard_names
from caploom.training.image_sources import ImageCache, ResizedImages
from caploom.training.images import ImageDecoder
from caploom.training.settings import ClipTrainerSettings


@pytest.fixture
def factory(write_source: Callable, make_factory: Callable):
    made = make_factory(write_source(23))
    create_new_shards(made)
    for shard in shard_names(made):
        ingest_shard(made, shard)
    return made


SETTINGS = ClipTrainerSettings.model_validate({"model": "picture-book", "steps": 1, "workers": 2})


def decoder_of() -> ImageDecoder:
    from caploom.training.objectives import create_objective

    return create_objective(SETTINGS, seed=0).decoder


def pairs_of(factory) -> list[dict]:
    from caploom.stages.raw_pairs import ingested_shards

    return [row for shard in ingested_shards(factory) for row in read_pairs(shard).to_pylist()]


def test_resized_images_are_those_that_would_be_decoded(factory) -> None:
    said: list[str] = []
    folders = resized_images(factory, SETTINGS, say=said.append)
    assert len(folders) == 3  # a folder a shard
    (line,) = said
    assert line.startswith("resized images: 23 x 3 x 64 x 64 bytes = 0.3 MB, in ")
    decoder = decoder_of()
    source = ResizedImages(folders, decoder)
    for row in pairs_of(factory):
        expected = decoder.decode(row["path"], row["image_id"])
        Path(row["path"]).rename(row["path"] + ".gone")  # it really comes from the folder
        assert np.array_equal(source.decode(row["path"], row["image_id"]), expected)


def test_they_are_made_once_and_their_bytes_are_said(factory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = resized_images(factory, SETTINGS)
    for row in pairs_of(factory):
        Path(row["path"]).unlink()
    said: list[str] = []
    assert resized_images(factory, SETTINGS, say=said.append) == first
    assert said == []
    sizes = [artifact.manifest.summary["bytes"] for artifact in factory.store.list(resized.KIND)]
    assert sum(sizes) == 23 * 3 * 64 * 64


def test_an_image_that_is_gone_is_accounted_and_the_others_stay_in_order(factory) -> None:
    rows = pairs_of(factory)
    Path(rows[4]["path"]).unlink()
    folders = resized_images(factory, SETTINGS)
    counts = [artifact.manifest.rows for artifact in factory.store.list(resized.KIND)]
    assert sum(count.rows_failed for count in counts) == 1
    assert {reason for count in counts for reason in count.reasons} == {"missing_image"}
    source, decoder = ResizedImages(folders, decoder_of()), decoder_of()
    for row in rows[:4] + rows[5:]:
        assert np.array_equal(source.decode(row["path"], row["image_id"]), decoder.decode(row["path"], row["image_id"]))
    with pytest.raises(ImageFault, match="there is no such file"):
        source.decode(rows[4]["path"], rows[4]["image_id"])


def test_a_disk_without_room_is_said_before_anything_is_written(factory, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr(resized.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"need 23 x 3 x 64 x 64 bytes = 0\.3 MB, and the disk has 0\.0 MB left"):
        resized_images(factory, SETTINGS)
    assert factory.store.list(resized.KIND) == []


def test_images_of_another_size_are_refused(factory) -> None:
    from open_clip.transform import PreprocessCfg

    with pytest.raises(TrainingError, match=r"its images are \(3, 64, 64\) but the model takes \(3, 32, 32\)"):
        ResizedImages(resized_images(factory, SETTINGS), ImageDecoder(PreprocessCfg(size=32)))


def test_an_image_that_is_in_no_folder_is_decoded(factory, tmp_path: Path) -> None:
    from caploom.storage.records import image_identity

    path = tmp_path / "new.png"
    Image.new("RGB", (70, 70), (200, 10, 10)).save(path)
    source = ResizedImages(resized_images(factory, SETTINGS), decoder_of())
    assert source.decode(str(path), image_identity(path.read_bytes())).shape == (3, 64, 64)


def test_full_cache_keeps_what_it_holds_and_stays_in_bounds() -> None:
    asked: list[str] = []

    class Source:
        def decode(self, path: str, image_id: str) -> np.ndarray:
            asked.append(image_id)
            return np.zeros(40, np.uint8)

    cache = ImageCache(Source(), 100)
    for image_id in "abcabc":
        cache.decode(f"{image_id}.png", image_id)
    assert asked == ["a", "b", "c", "c"]
