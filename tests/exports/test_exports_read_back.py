"""Each export that another tool reads, read by that tool."""

import json
import random
import shlex
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from export_sets import HARD_CAPTIONS, TrainingSets, small_image
from PIL import Image

from caploom.errors import ExportError
from caploom.exports.export import export_training_set


@pytest.fixture
def sets(tmp_path):
    return TrainingSets(tmp_path)


def seen_pairs(rows):
    return [(small_image(Image.open(row["path"])), caption) for row in rows for caption in row["captions"]]


@pytest.mark.parametrize(("format_name", "name"), [("open-clip-tsv", "pairs.tsv"), ("open-clip-csv", "pairs.csv")])
def test_open_clip_reads_the_table_with_the_separator_of_the_printed_command(sets, tmp_path, format_name, name):
    from open_clip_train.data import CsvDataset
    from open_clip_train.params import parse_args

    rows = sets.hard()
    made = export_training_set(sets.finished(rows), format_name, tmp_path / "out")
    words = shlex.split(made.how_to_read[0])
    assert words[:3] == ["python", "-m", "open_clip_train.main"]
    args = parse_args(words[3:])
    assert args.train_data == str(tmp_path / "out" / name)
    table = CsvDataset(
        args.train_data, small_image, args.csv_img_key, args.csv_caption_key, args.csv_separator, lambda texts: texts
    )
    changed = {"NaN": "NaN ", "null": "null ", "None": "None ", "a nul \0 inside": "a nul   inside"}
    expected = [(pixels, changed.get(caption, caption)) for pixels, caption in seen_pairs(rows)]
    assert [table[index] for index in range(len(table))] == expected


def test_open_clip_trains_on_the_tars_as_the_printed_command_says(sets, tmp_path):
    from open_clip_train.data import get_wds_dataset
    from open_clip_train.params import parse_args

    rows = sets.plain(20)
    made = export_training_set(sets.finished(rows), "webdataset", tmp_path / "out", samples_a_tar=6, seed=3)
    assert sorted(made.files) == ["00000.tar", "00001.tar", "00002.tar", "00003.tar", "sizes.json"]
    args = parse_args([*shlex.split(made.how_to_read[0], comments=True)[3:], "--batch-size", "5", "--workers", "0"])
    args.world_size = 1
    data = get_wds_dataset(args, to_numbers, is_train=True, tokenizer=lambda text: [text])
    assert data.dataloader.num_samples == 20  # from sizes.json
    seen = [
        (tuple(pixels.tolist()), text)
        for images, texts in data.dataloader
        for pixels, text in zip(images, texts, strict=True)
    ]
    said = {small_image(Image.open(row["path"])): row["captions"] for row in rows}
    assert sorted(pixels for pixels, _ in seen) == sorted(said)
    assert all(text in said[pixels] for pixels, text in seen)
    assert len({text.split(" says ")[0] for _, text in seen}) > 1


def to_numbers(image):
    import torch

    return torch.tensor(small_image(image))


def samples_of(folder):
    import webdataset

    tars = sorted(str(path) for path in folder.glob("*.tar"))
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())


def test_webdataset_reads_every_caption_under_its_key_and_the_images_own_bytes(sets, tmp_path):
    rows = sets.hard()
    export_training_set(sets.finished(rows), "webdataset", tmp_path / "out")
    samples = samples_of(tmp_path / "out")
    assert [sample["__key__"] for sample in samples] == [row["image_id"] for row in rows]
    for sample, row, hard in zip(samples, rows, HARD_CAPTIONS, strict=True):
        assert sample["json"]["raw"] == sample["raw.txt"] == row["captions"][0]
        assert sample["json"]["otter"] == sample["otter.txt"] == hard
        assert sample["json"]["_weights"] == {"raw": 0.5, "otter": 0.5}
        assert sample["txt"] in row["captions"]
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        members = {member.name: member for member in tar}
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, 0, "")}
        for row in rows:
            data = tar.extractfile(f"{row['image_id']}.png").read()
            assert data == Path(row["path"]).read_bytes()


def draw_as_newer_open_clip(metadata, keys, probabilities):
    """Its documented rule: the keys in a random order weighted by the probabilities; the first that has text is it."""
    left = dict(zip(keys, probabilities, strict=True))
    while left:
        key = random.choices(list(left), list(left.values()))[0]
        if metadata.get(key, "").strip():
            return metadata[key]
        del left[key]
    return ""


def test_the_printed_keys_and_probabilities_draw_what_the_mix_draws(sets, tmp_path):
    rows = sets.plain(30)
    # A third of the images lack otter's caption: that must not bend the printed mix.
    for row in rows[:10]:
        row.update(captions=row["captions"][:2], sources=row["sources"][:2], weights=[0.6, 0.4])
    made = export_training_set(sets.finished(rows), "webdataset", tmp_path / "out")
    words = shlex.split(made.how_to_read[1], comments=True)
    keys = words[words.index("--json-text-key") + 1].split(";")
    probabilities = [float(word) for word in words[words.index("--json-text-key-probs") + 1 :][: len(keys)]]
    assert dict(zip(keys, probabilities, strict=True)) == {"raw": 0.6, "llava-1.5": 0.2, "otter": 0.2}
    random.seed(0)
    drawn = Counter()
    for sample in samples_of(tmp_path / "out")[10:]:
        for _ in range(100):
            drawn[draw_as_newer_open_clip(sample["json"], keys, probabilities).split(" says ")[0]] += 1
    assert drawn["raw"] == pytest.approx(1200, abs=90)
    assert drawn["otter"] == pytest.approx(400, abs=75)


def test_a_source_that_speaks_twice_of_an_image_has_two_keys(sets, tmp_path):
    rows = [*sets.plain(3), sets.row(sets.picture(9), ["one", "two", "three"], ["raw", "raw", "otter"])]
    made = export_training_set(sets.finished(rows), "webdataset", tmp_path / "out")
    sample = samples_of(tmp_path / "out")[3]
    assert [sample["json"][key] for key in ("raw", "raw#2", "otter")] == ["one", "two", "three"]
    assert sample["raw#2.txt"] == "two"
    assert list(made.facts["keys"]) == ["raw", "raw#2", "llava-1.5", "otter"]
    assert sum(made.facts["keys"].values()) == pytest.approx(1)


def test_images_that_open_clip_does_not_look_for_are_named(sets, tmp_path):
    misnamed = sets.picture(2, ".jpg")
    misnamed.rename(sets.folder / "images" / "two.bin")
    paths = [sets.picture(0), sets.picture(1, ".gif"), sets.folder / "images" / "two.bin", sets.picture(3, ".webp")]
    training_set = sets.finished([sets.row(path, ["said"], ["raw"]) for path in paths])
    made = export_training_set(training_set, "webdataset", tmp_path / "out")
    assert made.facts["images_by_extension"] == {"gif": 1, "jpg": 1, "png": 1, "webp": 1}
    assert "skips the images that are gif" in made.how_to_read[0]
    assert "--image-key 'jpg;png;jpeg;webp;gif'" in made.how_to_read[1]


def test_captioners_that_webdataset_would_take_for_one_are_refused(sets, tmp_path):
    training_set = sets.finished([sets.row(sets.picture(0), ["a", "b"], ["Otter", "otter"])])
    with pytest.raises(ExportError, match='"Otter" and "otter" differ only in case'):
        export_training_set(training_set, "webdataset", tmp_path / "out")


@pytest.fixture
def load_image_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    def load(folder):
        return datasets.load_dataset(
            "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
        )

    return load


@pytest.mark.parametrize("symlink", [False, True])
def test_datasets_loads_the_image_folder(sets, tmp_path, load_image_folder, symlink):
    rows = sets.hard()
    (sets.folder / "images" / "0000.png").unlink()  # so that skipped.jsonl lies beside metadata.jsonl
    there = rows[1:]
    made = export_training_set(sets.finished(rows), "hf-imagefolder", tmp_path / "out", symlink=symlink)
    loaded = load_image_folder(tmp_path / "out")
    by_identity = {entry["image_id"]: entry for entry in loaded}
    assert sorted(by_identity) == sorted(row["image_id"] for row in there)
    for row in there:
        entry = by_identity[row["image_id"]]
        assert (entry["captions"], entry["sources"]) == (row["captions"], row["sources"])
        assert entry["weights"] == [0.5, 0.5]
        assert entry["text"] in row["captions"]
        assert small_image(entry["image"]) == small_image(Image.open(row["path"]))
    assert made.facts == {"symbolic_links" if symlink else "hard_links": len(HARD_CAPTIONS) - 1}


def test_images_are_hard_links_and_their_names_are_their_identities(sets, tmp_path):
    rows = sets.plain(3)
    export_training_set(sets.finished(rows), "hf-imagefolder", tmp_path / "out")
    for line, row in zip((tmp_path / "out" / "metadata.jsonl").read_text().splitlines(), rows, strict=True):
        name = json.loads(line)["file_name"]
        assert name == f"images/{row['image_id'][:2]}/{row['image_id']}.png"
        assert (tmp_path / "out" / name).samefile(row["path"])


def test_on_another_file_system_images_are_copied(sets, small_disk):
    rows = sets.plain(3)
    made = export_training_set(sets.finished(rows), "hf-imagefolder", small_disk / "out")
    assert made.facts == {"copies": 3}
    for row in rows:
        copy = small_disk / "out" / "images" / row["image_id"][:2] / f"{row['image_id']}.png"
        assert copy.read_bytes() == Path(row["path"]).read_bytes()


def test_an_image_that_comes_twice_is_placed_once_and_the_users_file_is_not_written_to(sets, tmp_path):
    first, second = sets.plain(2)
    before = Path(first["path"]).stat().st_mtime_ns
    made = export_training_set(sets.finished([first, second, first]), "hf-imagefolder", tmp_path / "out")
    assert made.facts == {"hard_links": 2, "repeated": 1}
    assert Path(first["path"]).stat().st_mtime_ns == before
