"""`caploom.Factory` as a notebook uses it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from asked_factory import NASTY
from small_factory import settings_of

import caploom
from caploom.config.factory import Factory
from caploom.errors import CaploomError, ConfigError, MissingArtifactError
from caploom.storage.records import CAPTIONS, PAIRS, SHEARED, TRAINING_ROWS

ROOT = Path(caploom.__file__).parents[1]


def opened(factory: Factory) -> caploom.Factory:
    return caploom.Factory.from_yaml(str(factory.store.root.parent / "factory.yaml"))


@pytest.fixture(scope="module")
def factory(asked):
    return opened(asked)


@pytest.fixture
def captioned(own_captioned):
    return opened(own_captioned)


@pytest.fixture
def empty(write_source, write_config):
    return caploom.Factory.from_yaml(write_config(settings_of(write_source(2))))


def test_importing_caploom_loads_nothing_of_it():
    script = "import sys, caploom; print(*{'pyarrow', 'pydantic', 'duckdb', 'caploom.notebook'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert said.stdout.split() == []
    assert "Factory" in dir(caploom)
    with pytest.raises(AttributeError, match="no attribute 'Factroy'"):
        _ = caploom.Factroy


def test_it_is_a_factory_of_the_library(factory):
    assert isinstance(factory, Factory)
    assert factory.shards == ["shard-00000", "shard-00001"]
    assert repr(factory) == "<Factory test: captioners colours; recipes raw-only, sheared>"


@pytest.mark.parametrize(
    ("call", "arguments", "schema", "rows"),
    [
        ("pairs", [], PAIRS, 15),
        ("captions", ["colours"], CAPTIONS, 15),
        ("sheared", ["colours", "first"], SHEARED, 15),
        ("training_set", ["sheared"], TRAINING_ROWS, 14),
    ],
)
def test_tables_are_of_all_shards_and_can_be_narrowed(factory, call, arguments, schema, rows):
    table = getattr(factory, call)(*arguments)
    assert (table.column_names, table.num_rows) == (schema.names, rows)
    assert list(table.to_pandas().columns) == schema.names
    two = list(reversed(schema.names[:2]))
    for limit, found in ((0, 0), (3, 3), (12, 12), (1000, rows)):
        narrow = getattr(factory, call)(*arguments, columns=two, limit=limit)
        assert narrow.equals(table.select(two).slice(0, limit)), limit
        assert narrow.num_rows == found
    if call != "training_set":
        parts = [getattr(factory, call)(*arguments, shard=shard).num_rows for shard in factory.shards]
        assert parts == [10, 5]
    with pytest.raises(ConfigError, match=rf'There is no column "imagee"; known: .*{schema.names[-1]}'):
        getattr(factory, call)(*arguments, columns=["imagee"])


def test_metrics_have_a_row_a_measurement(factory):
    table = factory.metrics().to_pandas()
    assert table[["recipe", "evaluation_set", "kind", "r1_i2t"]].values.tolist() == [
        ["raw-only", "held-out", "retrieval", 0.5],
        ["sheared", "held-out", "retrieval", 1.0],
    ]
    assert table["top1"].isna().all()
    assert table["on_present_data"].all()


def test_a_number_has_its_reasons(factory):
    assert factory.why("sheared").figures[0].figure == "mean_recall@1"
    with pytest.raises(ConfigError, match='No recipe "shered" has been measured'):
        factory.why("shered")


def test_a_gallery_shows_captions_as_text(factory):
    shown = factory.gallery(2)
    assert len(shown) == 2
    html = shown._repr_html_()
    assert html.count('<img src="data:image/png;base64,') == 2
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "<script" not in shown._repr_markdown_()
    assert NASTY not in repr(shown) and "\x1b" not in repr(shown)
    assert len(factory.gallery(3, recipe="raw-only")) == 3


@pytest.mark.parametrize(
    ("call", "arguments", "sentence"),
    [
        ("pairs", [], r'The pairs are not made for any shard yet; `factory.run\("raw_pairs"\)`'),
        ("captions", ["colours"], "The captions of colours are not made for any shard yet"),
        ("sheared", ["colours", "first"], "The captions of colours by the shear first are not made for any shard yet"),
        ("training_set", ["sheared"], "The training set of sheared is not made for the present YAML and data yet"),
        ("gallery", [], "The pairs are not made"),
        ("metrics", [], "No recipe of test is measured yet"),
    ],
)
def test_what_is_missing_is_said(empty, call, arguments, sentence):
    with pytest.raises(MissingArtifactError, match=sentence):
        getattr(empty, call)(*arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "sentence"),
    [
        ("pairs", ["shard-00009"], 'There is no shard "shard-00009"; there are 2'),
        ("captions", ["colour"], 'There is no captioner "colour"'),
        ("sheared", ["colours", "frist"], r'There is no shear "frist"; known: none, first \(did you mean "first"\?\)'),
        ("training_set", ["nobody"], 'There is no recipe "nobody"'),
        ("gallery", [0], "count is 0"),
    ],
)
def test_a_wrong_name_is_said(factory, call, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        getattr(factory, call)(*arguments)


def test_a_factory_that_measures_nothing_says_so(write_source, write_config):
    settings = settings_of(write_source(1)) | {"evaluation_sets": {}}
    factory = caploom.Factory.from_yaml(write_config(settings))
    with pytest.raises(MissingArtifactError, match="test measures nothing: its YAML has no recipe"):
        factory.metrics()


def test_a_try_is_shown_like_a_gallery(captioned):
    tried = captioned.try_captioner("colours", images=2)
    assert (tried.generated, len(tried.images)) == (0, 2)
    assert tried._repr_html_().count("<img ") == 2
    assert tried._repr_markdown_().count("![image]") == 2


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The entry point of `pyproject.toml`, as an installation records it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tmp_path / "site" / "runner_of_a_test-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: runner-of-a-test\nVersion: 1\n")
    points = project["entry-points"]["caploom.runner"].items()
    (folder / "entry_points.txt").write_text("[caploom.runner]\n" + "".join(f"{k} = {v}\n" for k, v in points))
    monkeypatch.syspath_prepend(str(folder.parent))


def test_a_run_goes_as_far_as_a_step_and_says_what_failed_on_the_way(captioned, installed):
    written = captioned.path.read_text(encoding="utf-8")
    captioned.path.write_text(written.replace("max_repeats: 3", "min_words: 1000"), encoding="utf-8")
    factory = caploom.Factory.from_yaml(captioned.path)
    with pytest.raises(CaploomError, match=r"not all of it succeeded:\n.*sheared.*training_set"):
        factory.run("training_set")
    assert factory.training_set("raw-only").num_rows == 14
    with pytest.raises(MissingArtifactError):
        factory.training_set("sheared")
    assert factory.store.list("checkpoint") == []


def test_a_wrong_run_is_said(captioned, installed):
    with pytest.raises(ConfigError, match=r'There is no step "trainingset" here; .*did you mean "training_set"'):
        captioned.run("trainingset")
    with pytest.raises(ConfigError, match=r"this factory has none; open it with Factory\.from_yaml"):
        caploom.Factory.from_config(captioned.config).run()
