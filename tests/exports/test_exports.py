import json
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from export_sets import TrainingSets
from PIL import Image
from small_factory import ColourBackend, settings_of

from caploom.captioning.backend import load_backend
from caploom.cli import main
from caploom.common.settings import _warn_renamed
from caploom.config.factory import Factory
from caploom.errors import ExportError, StoreError
from caploom.exports.export import export_training_set
from caploom.exports.registry import EXPORTS, export_format
from caploom.stages.captions import caption_shard
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.shards import create_new_shards
from caploom.stages.sheared import shear_recipe
from caploom.stages.training_set import merge_training_set
from caploom.storage.bucket import Bucket
from caploom.storage.records import image_identity
from caploom.storage.tables import read_table
from caploom.training_set.settings import Drawing
from caploom.training_set.write import training_files


@pytest.fixture
def sets(tmp_path):
    return TrainingSets(tmp_path)


def pairs_of(rows, name="image"):
    return [{"image": row[name], "caption": caption} for row in rows for caption in row["captions"]]


def loaded(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("format_name", EXPORTS)
def test_every_format_accounts_for_every_caption_and_says_why_an_image_is_not_there(sets, tmp_path, format_name):
    rows = sets.plain(20)
    training_set = sets.finished(rows)
    (sets.folder / "images" / "0003.png").unlink()
    Image.new("RGB", (9, 9)).save(sets.folder / "images" / "0005.png")
    made = export_training_set(training_set, format_name, tmp_path / "out")
    assert (made.rows.rows_in, made.rows.rows_out, made.images) == (60, 54, 18)
    assert made.rows.reasons == {"missing_image": 3, "image_changed": 3}
    skipped = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {(row["image_id"], row["reason"]) for row in skipped} == {
        (rows[3]["image_id"], "missing_image"),
        (rows[5]["image_id"], "image_changed"),
    }
    manifest = loaded(tmp_path / "out" / "export.json")
    assert manifest == made.model_dump(mode="json")
    assert (manifest["training_set"], manifest["recipe"]) == (training_set.manifest.address, "mixed")
    assert manifest["data_version"] == training_set.data_version
    assert all((tmp_path / "out" / name).stat().st_size == size for name, size in manifest["files"].items())


@pytest.mark.parametrize("format_name", EXPORTS)
def test_the_same_training_set_gives_the_same_bytes(sets, tmp_path, format_name):
    training_set = sets.finished(sets.plain())
    for name in ("one", "two"):
        export_training_set(training_set, format_name, tmp_path / name)
    files = [path for path in sorted((tmp_path / "one").rglob("*")) if path.is_file() and path.name != "export.json"]
    assert files
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.parametrize("format_name", EXPORTS)
def test_nothing_leaves_the_folder(sets, tmp_path, format_name):
    training_set = sets.finished(sets.plain())
    before = set(tmp_path.rglob("*"))
    export_training_set(training_set, format_name, tmp_path / "deep" / "out")
    assert all(path.is_relative_to(tmp_path / "deep") for path in set(tmp_path.rglob("*")) - before)
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "out"]


def test_released_json_is_a_list_of_image_and_caption_with_the_users_own_paths(sets, tmp_path):
    rows = sets.hard()
    export_training_set(sets.finished(rows), "released-json", tmp_path / "out")
    assert loaded(tmp_path / "out" / "merged.json") == pairs_of(rows)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"merged.json", "export.json"}


def test_seed_json_is_an_old_name_that_still_works_and_warns(sets, tmp_path, caplog):
    _warn_renamed.cache_clear()
    made = export_training_set(sets.finished(sets.plain()), "seed-json", tmp_path / "out")
    assert (made.format, made.files.keys()) == ("released-json", {"merged.json"})
    assert caplog.messages == ['The export format "seed-json" is deprecated: write "released-json", its new name.']


def test_released_json_has_one_file_a_captioner_when_asked(sets, tmp_path):
    rows = sets.plain()
    made = export_training_set(sets.finished(rows), "released-json", tmp_path / "out", per_captioner=True)
    assert sorted(made.files) == [f"captioners/{name}.json" for name in ("llava-1.5", "otter", "raw")] + ["merged.json"]
    for index, source in enumerate(("raw", "llava-1.5", "otter")):
        assert loaded(tmp_path / "out" / "captioners" / f"{source}.json") == [
            {"image": row["image"], "caption": row["captions"][index]} for row in rows
        ]


def test_blip_reads_what_was_written(sets, tmp_path):
    rows = sets.hard()
    export_training_set(sets.finished(rows), "blip", tmp_path / "out")
    # As BLIP's pretrain_dataset: json.load, then Image.open(ann["image"]) and ann["caption"].
    for entry, pair in zip(loaded(tmp_path / "out" / "blip.json"), pairs_of(rows, "path"), strict=True):
        assert Image.open(entry["image"]).size == (16, 16)
        assert entry == pair


def test_blips_paths_below_an_image_root_open_from_there_and_no_other_image_is_in_it(sets, tmp_path):
    rows = sets.plain(4)
    elsewhere = tmp_path / "elsewhere.png"
    Image.new("RGB", (5, 5)).save(elsewhere)
    training_set = sets.finished([*rows, sets.row(elsewhere, ["far away"], ["raw"])])
    made = export_training_set(training_set, "blip", tmp_path / "out", image_root=sets.folder / "images")
    entries = loaded(tmp_path / "out" / "blip.json")
    assert {entry["image"] for entry in entries} == {f"{number:04d}.png" for number in range(4)}
    assert all((sets.folder / "images" / entry["image"]).is_file() for entry in entries)
    assert made.rows.reasons == {"outside_image_root": 1}


def test_one_per_image_draws_with_the_mixes_weights(sets, tmp_path):
    rows = sets.plain(200)
    made = export_training_set(sets.finished(rows), "released-json", tmp_path / "a", one_per_image=True)
    entries = loaded(tmp_path / "a" / "merged.json")
    assert [entry["image"] for entry in entries] == [row["image"] for row in rows]
    drawn = Counter(entry["caption"].split(" says ")[0] for entry in entries)
    # 0.6, 0.2, 0.2 of 200 draws; four standard deviations are 28 and 23.
    assert drawn["raw"] == pytest.approx(120, abs=28)
    assert drawn["otter"] == pytest.approx(40, abs=23)
    assert made.rows.reasons == {"not_drawn": 400}
    export_training_set(sets.finished(rows), "released-json", tmp_path / "b", one_per_image=True, seed=1)
    assert loaded(tmp_path / "b" / "merged.json") != entries


def test_rows_of_one_image_that_follow_each_other_are_one_image(sets, tmp_path):
    rows = sets.plain(6)
    one_a_caption = [
        {**row, "captions": [caption], "sources": [source], "weights": [1.0]}
        for row in rows
        for caption, source in zip(row["captions"], row["sources"], strict=True)
    ]
    made = export_training_set(sets.finished(one_a_caption), "released-json", tmp_path / "out", one_per_image=True)
    assert (made.images, made.rows.rows_out, made.rows.rows_in) == (6, 6, 18)


def test_blank_captions_and_images_without_one_are_left_out(sets, tmp_path):
    rows = sets.plain(2)
    rows.append(sets.row(sets.picture(50), ["", "said"], ["raw", "otter"]))
    rows.append(sets.row(sets.picture(51), [" \n"], ["raw"]))
    rows.append(sets.row(sets.picture(52), [], []))
    made = export_training_set(sets.finished(rows), "open-clip-tsv", tmp_path / "out")
    assert made.rows.reasons == {"blank_caption": 2}
    assert (made.images, made.rows.rows_out) == (3, 7)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert reasons == ["blank_caption", "blank_caption", "no_caption"]


def test_what_the_mix_never_draws_is_left_out_and_counted(sets, tmp_path):
    rows = [{**row, "weights": [0.0, 0.5, 0.5]} for row in sets.plain(4)]
    made = export_training_set(sets.finished(rows), "released-json", tmp_path / "out")
    assert made.rows.reasons == {"never_drawn": 4}
    said = Counter(entry["caption"].split(" says ")[0] for entry in loaded(tmp_path / "out" / "merged.json"))
    assert said == {"llava-1.5": 4, "otter": 4}


@pytest.mark.parametrize("format_name", EXPORTS)
def test_the_sources_prefix_is_in_the_export_and_what_readers_do_not_do_is_said(sets, tmp_path, format_name):
    drawing = Drawing(texts=3, sub_caption=True, source_prefix=True)
    made = export_training_set(sets.finished(sets.plain(2), drawing), format_name, tmp_path / "out")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for source in ("raw", "llava-1.5", "otter"):
        assert f"{source}: {source} says 1".encode() in everything
    assert [note.split(";")[0] for note in made.notes] == [
        "The mix trains on up to 3 captions of an image in one step",
        "The mix trains on a random sentence of each drawn caption",
    ]


def test_the_check_of_images_can_be_made_cheaper(sets, tmp_path):
    training_set = sets.finished(sets.plain(4))
    (sets.folder / "images" / "0001.png").unlink()
    (sets.folder / "images" / "0002.png").write_bytes(b"other bytes")
    reasons = {
        check: export_training_set(training_set, "blip", tmp_path / check, check=check).rows.reasons
        for check in ("content", "exists", "none")
    }
    assert reasons == {
        "content": {"image_changed": 3, "missing_image": 3},
        "exists": {"missing_image": 3},
        "none": {},
    }


@pytest.mark.parametrize(
    ("format_name", "options", "sentence"),
    [
        ("webdatset", {}, r'no export format "webdatset"; known: .*\(did you mean "webdataset"\?\)'),
        (
            "blip",
            {"symlink": True},
            r'Export format blip: symlink: there is no key "symlink" here; allowed: .*image_root',
        ),
        ("webdataset", {"samples_a_tar": 0}, r"samples_a_tar: 0 is wrong: input should be greater than 0"),
        (
            "released-json",
            {"check": "maybe"},
            r"check: 'maybe' is wrong: input should be 'content', 'exists' or 'none'",
        ),
        ("blip", {"image_root": "/nowhere/at/all"}, r"/nowhere/at/all: this image root is not a folder"),
    ],
)
def test_a_wrong_request_is_a_sentence_and_leaves_nothing(sets, tmp_path, format_name, options, sentence):
    training_set = sets.finished(sets.plain(2))
    with pytest.raises(ExportError, match=sentence):
        export_training_set(training_set, format_name, tmp_path / "deep" / "out", **options)
    assert not (tmp_path / "deep").exists() or not list((tmp_path / "deep").iterdir())


def test_a_folder_with_something_in_it_is_refused_and_an_empty_one_is_taken(sets, tmp_path):
    training_set = sets.finished(sets.plain(2))
    out = tmp_path / "out"
    out.mkdir()
    export_training_set(training_set, "blip", out)
    with pytest.raises(ExportError, match="name a folder that is new or empty"):
        export_training_set(training_set, "released-json", out)
    assert not (out / "merged.json").exists()


@pytest.mark.parametrize("format_name", EXPORTS)
def test_an_export_to_object_storage_is_that_of_a_folder_and_its_manifest_comes_last(sets, s3, tmp_path, format_name):
    server, name = s3
    training_set = sets.finished(sets.plain(3))
    there, here = f"s3://{name}/out", tmp_path / "out"
    made = export_training_set(training_set, format_name, there)
    assert export_training_set(training_set, format_name, here).files == made.files
    bucket = Bucket(there)
    local = {path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    far = {key: bucket.read(key) for key in bucket.list("")}
    manifests = [{**json.loads(files.pop("export.json")), "how_to_read": []} for files in (local, far)]
    assert manifests[0] == manifests[1]
    assert {key: data.replace(there.encode(), str(here).encode()) for key, data in far.items()} == local
    written = [path for method, path, _ in server.seen if method == "PUT"]
    assert written[-1].endswith("out/export.json")
    with pytest.raises(ExportError, match=f"{there}: there is something here already; name a prefix that is new"):
        export_training_set(training_set, format_name, there)


def test_what_a_killed_export_left_in_object_storage_is_written_over(sets, s3, monkeypatch):
    training_set, there = sets.finished(sets.plain(3)), f"s3://{s3[1]}/out"
    Bucket(there).write("images/left-over", b"half")
    export_training_set(training_set, "released-json", there)
    assert sorted(Bucket(there).list("")) == ["export.json", "merged.json"]


def test_denied_uploads_and_symbolic_links_to_object_storage_are_sentences(sets, s3):
    server, name = s3
    training_set = sets.finished(sets.plain(2))
    with pytest.raises(ExportError, match="object storage has no symbolic links"):
        export_training_set(training_set, "hf-imagefolder", f"s3://{name}/out", symlink=True)
    server.code, server.spoil = "AccessDenied", lambda method, path: 403 if method == "PUT" else None
    with pytest.raises(StoreError, match=r"the storage denies access .*credentials in the environment"):
        export_training_set(training_set, "released-json", f"s3://{name}/out")


def test_a_place_where_no_folder_can_be_is_a_sentence(sets, tmp_path):
    training_set = sets.finished(sets.plain(2))
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ExportError, match="name a folder that is new or empty"):
        export_training_set(training_set, "blip", file)
    with pytest.raises(ExportError, match=r"out: the export cannot be written .*name another folder"):
        export_training_set(training_set, "blip", file / "out")
    assert file.read_text() == "mine"


def test_nothing_left_to_export_is_refused_with_the_reasons(sets, tmp_path):
    training_set = sets.finished(sets.plain(2))
    for path in (sets.folder / "images").iterdir():
        path.unlink()
    with pytest.raises(ExportError, match=r"nothing is left to export \(6 missing_image\)"):
        export_training_set(training_set, "webdataset", tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_nothing(sets, small_disk):
    rows = [sets.row(sets.picture(number), [f"{number} " + "word " * 4_000], ["raw"]) for number in range(100)]
    training_set = sets.finished(rows)
    for format_name in ("released-json", "webdataset"):
        with pytest.raises(ExportError, match=r"cannot be written \(no space left on device\); make room"):
            export_training_set(training_set, format_name, small_disk / "out")
        assert not list(small_disk.iterdir())


def test_what_a_killed_export_left_is_swept_and_nothing_else(sets, tmp_path):
    deep = tmp_path / "deep"
    left = deep / ".out.caploom-export.999999999.00000000"
    others = [deep / ".out.999999999.backup", deep / ".output.caploom-export.999999999.00000000"]
    for folder in (left, *others):
        folder.mkdir(parents=True)
    export_training_set(sets.finished(sets.plain(2)), "blip", deep / "out")
    assert sorted(path.name for path in deep.iterdir()) == sorted([*(path.name for path in others), "out"])


def test_every_format_says_what_it_is():
    for name in EXPORTS:
        assert export_format(name).__doc__


def merged(factory, load_captioner):
    create_new_shards(factory)
    ingest_shard(factory, "shard-00000")
    caption_shard(factory, "colours", "shard-00000", load_captioner)
    recipe = factory.config.recipe("sheared")
    shear_recipe(factory, recipe)
    return merge_training_set(factory, recipe)


def test_the_command_exports_a_recipes_training_set(write_source, write_config, tmp_path):
    config = write_config(settings_of(write_source(5)))

    def call(*arguments):
        return CliRunner().invoke(main, ["export", str(config), *arguments, "--out", str(tmp_path / "out")])

    early = call("sheared", "--format", "released-json")
    assert early.exit_code == 2
    assert "first" in early.output and "Traceback" not in early.output
    merged(Factory.from_yaml(config), ColourBackend)
    wrong = call("sheared", "--format", "released-json", "--symlink")
    assert wrong.exit_code == 2
    assert 'there is no key "symlink" here' in wrong.output
    result = call("sheared", "--format", "released-json", "--per-captioner")
    assert result.exit_code == 0, result.output
    assert "10 captions of 5 images as released-json." in result.output
    raw = loaded(tmp_path / "out" / "captioners" / "raw.json")
    assert sorted(entry["caption"] for entry in raw) == [f"photo {number}" for number in range(5)]
    assert sorted(entry["image"] for entry in raw) == [f"{number:04d}.png" for number in range(5)]


@pytest.mark.parametrize("format_name", list(EXPORTS))
def test_images_inside_a_pack_are_exported_as_files_of_their_own(write_source, make_factory, tmp_path, format_name):
    source = write_source(4)
    for file in (source / "images").iterdir():
        file.with_suffix(".txt").write_text(f"caption of {file.stem}")
    storage = fsspec.filesystem("memory")
    for file in (source / "images").iterdir():
        storage.pipe(f"/packed/{file.name}", file.read_bytes())
    factory = make_factory(source, pairs={"reader": "image_folder", "root": "memory://packed"})
    training_set = merged(factory, ColourBackend)
    storage.rm("/packed", recursive=True)
    export_training_set(training_set, format_name, tmp_path / "out")
    assert not (tmp_path / "out" / "skipped.jsonl").exists()
    found = {image_identity(file.read_bytes()) for file in (tmp_path / "out").rglob("images/*/*")}
    expected = {image_identity(file.read_bytes()) for file in (source / "images").glob("*.png")}
    if format_name in ("open-clip-tsv", "open-clip-csv", "blip", "hf-imagefolder"):
        assert found == expected
    if format_name == "open-clip-tsv":
        lines = (tmp_path / "out" / "pairs.tsv").read_text().splitlines()[1:]
        paths = {line.split("\t")[0].strip('"') for line in lines}
        assert {image_identity(Path(path).read_bytes()) for path in paths} == expected


def test_what_one_factory_exports_another_imports(write_source, make_factory, tmp_path):
    source = write_source(5)
    training_set = merged(make_factory(source), ColourBackend)
    export_training_set(training_set, "released-json", tmp_path / "out", per_captioner=True)
    folder = tmp_path / "out" / "captioners"
    images = str(source / "images")
    again = make_factory(
        source,
        store=str(tmp_path / "another-store"),
        pairs={"reader": "image_captions", "root": images, "captions": str(folder / "raw.json")},
        captioners={"colours": {"backend": "import", "root": images, "captions": str(folder / "colours.json")}},
    )
    imported = merged(again, lambda: load_backend(again.config.captioners["colours"], again.store))
    first, second = (
        [row for path in training_files(artifact) for row in read_table(path).to_pylist()]
        for artifact in (training_set, imported)
    )
    assert first == second
