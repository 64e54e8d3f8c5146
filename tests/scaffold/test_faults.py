"""`init` on what it cannot read: one sentence that says what was seen, exit code 2, and no YAML."""

import os
import zlib

import pytest
from click.testing import CliRunner
from places import FORMS, caption, pack, photos, png, url, write

from caploom.cli import main
from caploom.config.factory_config import load_config


@pytest.fixture
def init(tmp_path):
    def call(place, *arguments, out=tmp_path / "mine.yaml", captioner="demo:tiny-llava"):
        given = [str(place), "--out", str(out), "--captioner", captioner, *map(str, arguments)]
        return CliRunner().invoke(main, ["init", *given])

    return call


@pytest.fixture
def refused(init, tmp_path):
    """The one sentence of a refusal."""

    def sentence(place, *arguments, **keys):
        before = sorted(tmp_path.iterdir())
        result = init(place, *arguments, **keys)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert len(result.output.strip().splitlines()) == 1
        assert result.output.strip().endswith(".")
        assert sorted(tmp_path.iterdir()) == before
        return result.output.strip()

    return sentence


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "data" / "below").mkdir(parents=True)
    assert "data: the folder is empty; name one with images" in refused(tmp_path / "data")


def test_a_folder_of_pdfs(refused, tmp_path):
    write(tmp_path / "data", {"a.pdf": "%PDF", "b/c.PDF": "%PDF", "LICENSE": "x"})
    message = refused(tmp_path / "data")
    assert "there are 3 files (2 .pdf, 1 with no ending), and no image, table of images or tar is among them" in message


def test_a_zip_is_to_be_unpacked(refused, tmp_path):
    write(tmp_path / "data", {"a.zip": "PK"})
    assert "unpack the archives first" in refused(tmp_path / "data")
    assert "a .zip is not read; unpack it" in refused(tmp_path / "data" / "a.zip")


def test_texts_without_images(refused, tmp_path):
    write(tmp_path / "data", {"a.txt": "x"})
    assert "there is 1 file (1 .txt), and no image" in refused(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.pdf", "it is neither a tar nor a table (.json, .jsonl, .csv, .tsv, .parquet)"),
        ("a.png", "it is one image; name its folder"),
        ("a.tar.gz", "a compressed tar cannot be read in pieces; decompress it to .tar"),
        ("a.parquet", "it cannot be read as Parquet"),
        ("a.tar", "there is no image in it that can be used"),
        ("a.csv", "there is no record in it"),
        ("a.json", "it is not JSON"),
        ("a.jsonl", "there is no record in it"),
    ],
)
def test_a_file_of_another_kind(name, sentence, refused, tmp_path):
    write(tmp_path / "data", {name: "nothing"})
    assert sentence in refused(tmp_path / "data" / name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "there is no record in it"),
        ("", "it is not JSON"),
        ("[{", "the JSON ends in the middle after row 0"),
        ([{"id": 1, "name": "Ann"}], "no column has paths or URLs of images (columns: id, name)"),
        ({"a": 1}, "it is a JSON object, but neither COCO's"),
        ({"images": [{"filename": 7, "split": "train", "sentences": []}]}, 'none of its "images" has a "filename"'),
        ({"images": [{"filename": "0.png", "sentences": []}]}, "none of the files that it names"),
        ([{"image": "y" * 300 + ".png"}, {"image": "x/" * 1_000 + ".png"}], "none of the files that it names"),
        ([{"image": "\0.png"}, {"image": "\ud800.png"}, {"image": "../../../etc/passwd"}], "none of the files"),
        ([[1], 2, None, "x"], "there is no record in it"),
        ([{"image": ["a.png"]}], "no column has paths or URLs of images"),
        ([{"image": "gone.png", "caption": "x"}], "none of the files that it names, such as 'gone.png', was found"),
        ([{"image": url(0), "caption": "x"}], "download them first, such as with img2dataset"),
        (
            {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": []}]},
            "its annotations have no captions",
        ),
    ],
)
def test_a_json_that_does_not_lead_to_images(content, sentence, refused, tmp_path):
    write(tmp_path / "data", {"a.json": content})
    assert sentence in refused(tmp_path / "data" / "a.json")
    assert sentence in refused(tmp_path / "data")


def test_the_images_of_a_table_may_be_named(init, refused, tmp_path):
    records = [{"image": "train/0.png", "caption": "picture 0"}]
    write(tmp_path / "tables" / "mine", {"a.json": records})
    write(tmp_path / "far" / "away" / "from" / "it", {"train/0.png": png(0)})
    table, images = tmp_path / "tables" / "mine" / "a.json", tmp_path / "far" / "away" / "from" / "it"
    assert "name the folder that these paths start from with --images" in refused(table)
    assert "was found in" in refused(table, "--images", tmp_path / "far")
    assert "there is no such folder; correct --images" in refused(table, "--images", tmp_path / "none")
    assert init(table, "--images", images).exit_code == 0
    assert load_config(tmp_path / "mine.yaml").pairs.root == str(images)


def test_a_path_that_does_not_exist(refused, tmp_path):
    assert "none: there is no such file or folder; correct its path" in refused(tmp_path / "none")


def test_a_name_that_a_yaml_cannot_hold(refused, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write(folder, {"0.png": png(0)})
    assert "its name is not UTF-8, as a YAML is; rename it" in refused(folder)


def test_a_table_or_a_column_whose_name_a_yaml_cannot_hold(refused, tmp_path):
    odd = os.fsdecode(b"caf\xe9.csv")
    write(tmp_path / "data", {odd: "image\n0.png\n", "0.png": png(0)})
    assert "rename it" in refused(tmp_path / "data" / odd)
    write(tmp_path / "more", {"a.jsonl": '{"\\ud800": "0.png"}', "0.png": png(0)})
    assert "the name ? (image_key) is not UTF-8" in refused(tmp_path / "more" / "a.jsonl")


@pytest.mark.parametrize("place", ["nothing://bucket/a", "memory://nowhere/at/all", "http://127.0.0.1:9/a/"])
def test_a_url_that_cannot_be_listed(place, refused):
    assert refused(place).startswith(place.rstrip("/"))


def test_a_yaml_is_not_overwritten_unless_asked(init, refused, tmp_path):
    place, _ = photos(tmp_path / "data")
    (tmp_path / "mine.yaml").write_text("precious: 1\n")
    assert "it exists already; name another file with --out, or overwrite it with --force" in refused(place)
    assert (tmp_path / "mine.yaml").read_text() == "precious: 1\n"
    assert init(place, "--force").exit_code == 0
    assert load_config(tmp_path / "mine.yaml").captioners


def test_another_s_schema_is_not_overwritten_unless_asked(init, refused, tmp_path):
    place, _ = photos(tmp_path / "data")
    (tmp_path / "caploom.schema.json").write_text("{}")
    assert "it exists already and is not Caploom's schema" in refused(place)
    assert init(place, "--force").exit_code == 0
    assert init(place, out=tmp_path / "second.yaml").exit_code == 0


def test_a_place_that_cannot_be_written(refused, tmp_path):
    place, _ = photos(tmp_path / "data")
    assert "there is no folder" in refused(place, out=tmp_path / "none" / "mine.yaml")
    assert "it is a folder; name the YAML to write" in refused(place, out=tmp_path / "data")
    assert "it cannot be written" in refused(place, out="/proc/mine.yaml")


def test_a_preset_that_does_not_exist(refused, tmp_path):
    place, _ = photos(tmp_path / "data")
    message = refused(place, captioner="smolvlm-256")
    assert 'There is no preset "smolvlm-256"; known: ' in message
    assert 'did you mean "smolvlm-256m"' in message


def test_odd_files_and_lacking_captions_are_said_and_the_rest_is_read(init, tmp_path):
    place = write(tmp_path / "data", {"0.png": png(0), "0.txt": "picture 0", "1.png": png(1), "a.pdf": "%PDF"})
    write(place, {"2.svg": "<svg/>", "b.txt": "of nothing"})
    result = init(place)
    assert result.exit_code == 0
    assert "Without a caption: 1 image, for which captioners alone write." in result.output
    assert "1 row cannot be used (not_an_image), such as: 'a.pdf': by its name it is not an image" in result.output
    assert "(svg_not_accepted)" in result.output
    assert "(no_image)" in result.output


def test_downloads_that_are_missing_are_said(init, tmp_path):
    place, _ = FORMS["CC3M by CRC"][0](tmp_path / "data")
    assert "Of its first 4 images 1 is not there, and becomes a failed row." in init(place).output


def test_a_text_of_the_data_cannot_break_the_yaml(init, tmp_path):
    folder = tmp_path / "my: photos # 'of' \"summer\"\n&x"
    write(folder, {"0.png": png(0), "a\nb: c.pdf": "x"})
    result = init(folder)
    assert result.exit_code == 0, result.output
    assert load_config(tmp_path / "mine.yaml").pairs.root == str(folder)
    assert load_config(tmp_path / "mine.yaml").name == "my-photos-of-summer-x"


def test_tars_of_something_else_are_left_for_the_images_beside_them(init, refused, tmp_path):
    pack(tmp_path / "data" / "a.tar", {"0.pdf": b"x"})
    assert "there is no image in it that can be used" in refused(tmp_path / "data")
    pack(tmp_path / "data" / "b.tar", {"0.txt": caption(0)})
    write(tmp_path / "data", {"0.png": png(0)})
    result = init(tmp_path / "data")
    assert load_config(tmp_path / "mine.yaml").pairs.reader == "image_folder"
    assert "2 tars beside the images are not read" in result.output


def test_of_a_large_folder_as_much_is_looked_at_as_takes_seconds(init, tmp_path, monkeypatch):
    monkeypatch.setattr("caploom.scaffold.listing.MOST_NAMES", 5)
    folder = write(tmp_path / "data", {f"a/{number}.png": png(number) for number in range(8)})
    assert "at least 5 images" in init(folder).output
    records = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(8)]
    write(folder, {"captions.json": records})
    assert "8 images, 8 captions" in init(folder, "--force").output
    monkeypatch.setattr("caploom.scaffold.sample.MOST_ROWS", 3)
    assert "at least 3 images, at least 3 captions" in init(folder, "--force").output


def test_a_table_that_cannot_be_used_is_said_and_the_images_beside_it_are_read(init, tmp_path):
    write(tmp_path / "data", {"0.png": png(0), "captions.json": '[{"image": "gone.png", "caption": "x"}]'})
    result = init(tmp_path / "data")
    assert load_config(tmp_path / "mine.yaml").pairs.reader == "image_folder"
    assert f"Not used: {tmp_path}/data/captions.json: a table (.json) of images and captions, and none" in result.output


def test_a_second_call_finds_the_same_as_the_first(init, tmp_path):
    place, _ = photos(tmp_path / "data")
    first = init(place, out=place / "caploom.yaml")
    second = init(place, "--force", out=place / "caploom.yaml")
    assert first.output == second.output
    assert "Not used" not in second.output


def test_a_file_url_is_a_path(init, tmp_path):
    place, _ = photos(tmp_path / "data")
    assert init(f"file://{place}").exit_code == 0
    assert load_config(tmp_path / "mine.yaml").pairs.root == str(place)


def test_hashes_are_not_confused(init, tmp_path):
    """CRCs with an ending are not CRCs without one."""
    named = {f"training/{zlib.crc32(url(n).encode())}.jpg": png(n) for n in range(3)}
    table = "".join(f"picture {number}\t{url(number)}\n" for number in range(3))
    write(tmp_path / "data", {"a.tsv": table, **named})
    assert init(tmp_path / "data").exit_code == 0
    assert load_config(tmp_path / "mine.yaml").pairs.downloaded_as == "{crc32}.jpg"
