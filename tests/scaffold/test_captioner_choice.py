"""The captioner that a new factory begins with: what fits this machine, and what is said where it does not."""

import json
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner
from places import photos, photos_with_texts

from caploom.captioning.presets import presets
from caploom.cli import main
from caploom.config.factory_config import load_config
from caploom.errors import ConfigError
from caploom.scaffold.captioner_choice import choose_captioners, runnable


def no_gpu():
    return None


def test_without_a_gpu_it_is_one_that_runs_on_a_cpu():
    (chosen,) = choose_captioners([], no_gpu)
    assert (chosen.preset, chosen.name) == ("smolvlm-256m", "smolvlm-256m")
    assert "no GPU" in chosen.why


@pytest.mark.parametrize(
    ("memory", "preset"), [(80.0, "qwen3-vl"), (16.0, "smolvlm-2.2b"), (6.0, "smolvlm-500m"), (4.5, "smolvlm-256m")]
)
def test_with_a_gpu_it_is_the_largest_that_fits(memory, preset):
    (chosen,) = choose_captioners([], lambda: memory)
    assert chosen.preset == preset
    assert f"{memory:.0f} GB free" in chosen.why


def test_one_that_does_not_fit_is_refused_with_what_would_run():
    with pytest.raises(ConfigError) as error:
        choose_captioners(["demo:tiny-llava", "llava-1.5"], no_gpu)
    message = str(error.value)
    assert "The preset llava-1.5 needs a GPU with 34 GB, and this machine has no GPU" in message
    assert "would run here: smolvlm-500m, smolvlm-256m, demo:tiny-llava" in message
    assert "--elsewhere" in message
    with pytest.raises(ConfigError, match=r"this machine's GPU has 24.0 GB free; these would run here: .*minigpt-4"):
        choose_captioners(["llava-1.5"], lambda: 24.0)
    assert [each.preset for each in choose_captioners(["llava-1.5"], lambda: 40.0)] == ["llava-1.5"]


def test_for_another_machine_anything_may_be_named():
    chosen = choose_captioners(["llava-1.5", "gemma3", "llava-1.5"], no_gpu, elsewhere=True)
    assert [each.preset for each in chosen] == ["llava-1.5", "gemma3"]


def test_what_runs_is_what_has_the_memory():
    assert set(runnable(1000.0)) == {name for name, preset in presets().items() if "memory_gb" in preset}
    assert max(presets()[name]["memory_gb"] for name in runnable(None)) <= 5


def test_what_only_a_person_can_say_is_marked(tmp_path):
    place, _ = photos(tmp_path / "data")
    out = tmp_path / "mine.yaml"
    captioners = ["minigpt-4", "qwen-vl", "otter-original", "demo:tiny-otter"]
    arguments = [each for name in captioners for each in ("--captioner", name)]
    result = CliRunner().invoke(main, ["init", str(place), "--out", str(out), "--elsewhere", *arguments])
    assert result.exit_code == 0, result.output
    text = out.read_text(encoding="utf-8")
    assert "    model: ./minigpt-4  # EDIT: the folder of its weights\n" in text
    assert text.count("    url: http://127.0.0.1:8000/v1  # EDIT: the server's base address\n") == 2
    assert "Edit its `model` in the YAML: the folder of its weights." in result.output
    assert list(load_config(out).captioners) == ["minigpt-4", "qwen-vl", "otter-original", "tiny-otter"]


def test_a_preset_that_needs_a_gpu_is_refused_before_the_data_is_looked_at_or_a_model_loaded(tmp_path):
    """In a process of its own that sees no GPU."""
    code = (
        "import sys; from caploom.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('transformers' in sys.modules, file=sys.stderr)"
    )
    arguments = ["init", str(tmp_path / "none"), "--out", str(tmp_path / "a.yaml"), "--captioner", "qwen3-vl"]
    environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    sentence, loaded = result.stderr.strip().splitlines()
    assert sentence.startswith("The preset qwen3-vl needs a GPU with 17 GB, and this machine has no GPU")
    assert loaded == "False"


def test_the_examples_in_comments_are_a_factory_that_trains(tmp_path):
    place, _ = photos_with_texts(tmp_path / "data")
    out = tmp_path / "mine.yaml"
    CliRunner().invoke(main, ["init", str(place), "--out", str(out), "--captioner", "demo:tiny-llava"])
    head, _, commented = out.read_text(encoding="utf-8").partition("# trainers:")
    lines = [line.removeprefix("# ") for line in f"# trainers:{commented}".splitlines()]
    out.write_text(head + "\n".join(line.replace("#   ", "  ") for line in lines), encoding="utf-8")
    config = load_config(out)
    assert [recipe.name for recipe in config.expanded_recipes()] == ["raw-only", "sheared"]
    assert all(recipe.is_measured for recipe in config.expanded_recipes())


def test_an_editor_finds_the_schema_beside_the_yaml(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    place, _ = photos_with_texts(tmp_path / "data")
    out = tmp_path / "mine.yaml"
    CliRunner().invoke(main, ["init", str(place), "--out", str(out), "--captioner", "demo:tiny-llava"])
    text = out.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first == "# yaml-language-server: $schema=caploom.schema.json"
    schema = json.loads((tmp_path / first.rpartition("=")[2]).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


def test_presets_are_listed_as_json():
    listed = json.loads(CliRunner().invoke(main, ["presets", "--json"]).output)
    assert listed.keys() == presets().keys()
    one = json.loads(CliRunner().invoke(main, ["presets", "gemma3", "--json"]).output)
    assert one == {"gemma3": listed["gemma3"]}
