"""An installed package is the whole product: built as a wheel, and used from outside the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from made_once import MadeOnce
from small_factory import picture

CHECKOUT = Path(__file__).parents[1]


def install(folder: Path) -> None:
    """The wheel's content, and an environment of its own that sees the dependencies and no checkout."""
    wheels = folder / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    subprocess.run([*build, str(CHECKOUT)], check=True, capture_output=True)
    [wheel] = wheels.glob("*.whl")
    target = ["install", "--quiet", "--no-deps", "--target", str(folder / "installed"), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *target], check=True, capture_output=True)
    venv.create(folder / "environment", with_pip=False)


@pytest.fixture(scope="module")
def installed(made_once: MadeOnce) -> Path:
    return made_once("installed", install)


@pytest.fixture
def call(installed, tmp_path):
    """Runs `caploom`, as installed, in an empty folder."""

    def run(*arguments):
        # Folders in PYTHONPATH are no site folders: the line that leads to the checkout is not read in them.
        paths = os.pathsep.join([str(installed / "installed"), sysconfig.get_path("purelib")])
        script = "import sys, caploom.cli; sys.argv[0] = 'caploom'; caploom.cli.main()"
        return subprocess.run(
            [str(installed / "environment" / "bin" / "python"), "-P", "-c", script, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
def test_it_captions_a_folder_of_pictures(call, installed, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        picture(number).resize((64, 64)).save(tmp_path / "photos" / f"{number}.png")
    ran = call("caption", "photos", "--captioner", "demo:tiny-llava", "--out", "out.jsonl")
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png"]


@pytest.mark.slow
def test_it_has_the_demo_the_presets_and_the_ui(call, installed, tmp_path):
    ran = call("demo", "--quick")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "caploom ui caploom-demo/caploom.yaml" in ran.stdout
    assert list((tmp_path / "caploom-demo" / "store" / "ablation_report").glob("*/report.html"))
    assert "llava-1.5" in call("presets").stdout
    package = installed / "installed"
    for file in ("caploom/py.typed", "dagster_project/workspace.yaml", "caploom/demo/demo.yaml"):
        assert (package / file).exists(), file
    assert not (package / "demo_captioners").exists()
