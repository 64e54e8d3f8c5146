"""Takes this documentation's pictures from the real UI: `python docs/take_screenshots.py --config configs/demo.yaml`.

Opens the UI on a finished factory (`make demo` first), drives a headless Chromium through it with playwright, and
writes PNG files into `docs/pictures/`. The tests in `tests/e2e` drive the same pages with the same functions.
"""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import yaml
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from caploom.config.factory_config import DEMO_CONFIG, FactoryConfig, load_config
from caploom.config.recipes import Recipe
from caploom.errors import CaploomError

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"

_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_START_PATIENCE = 120.0  # seconds until the UI answers; 15 on an idle machine
_STOP_PATIENCE = 90.0  # seconds
_PAGE_PATIENCE = 60_000  # milliseconds
_SETTLE = 1_000  # milliseconds for a dialog or the graph to stop moving
_MOST_BYTES = 300_000
_LINEAGE_WIDTH, _TALL = 2300, 2000  # pixels
_AROUND_GRAPH = 480  # pixels: the bar above, the heads and feet of groups and nodes, some air
# The left-to-right graph with the menu folded, as a user can have it with two clicks.
_PREFERENCES = """
localStorage.setItem('asset-graph-direction', '"horizontal"');
localStorage.setItem('large-screen-nav-open', 'false');
localStorage.setItem('dagster-nav-collapsed', 'true');
"""


def find_chromium() -> str | None:
    """The path of an installed Chromium, or None (playwright's own browser is a download, and not needed)."""
    return next(filter(None, map(shutil.which, _CHROMIUM_NAMES)), None)


@contextmanager
def running_ui(config: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The UI of a factory as a child process, and its URL; it is stopped at the end, as by Ctrl-C."""
    port = _free_port()
    command = [sys.executable, "-m", "dagster_project.ui", "--config", str(config), "--port", str(port)]
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_answer(child, url)
        yield child, url
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=_STOP_PATIENCE)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def new_page(browser: Browser, width: int, height: int) -> Page:
    """A page of that size in pixels, with the UI's preferences set."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(_PAGE_PATIENCE)
    page.add_init_script(_PREFERENCES)
    return page


def open_lineage(page: Page, url: str, assets: Sequence[str]) -> list[Locator]:
    """Open the global lineage graph with its groups expanded; returns the node of each asset."""
    page.goto(f"{url}/asset-groups")
    page.get_by_text("captions", exact=True).last.wait_for()
    # The list of groups beside the graph.
    page.get_by_role("button").filter(has=page.get_by_label("panel_show_right")).first.click()
    page.wait_for_timeout(_SETTLE)  # the graph fits itself to the room it has when it expands
    page.keyboard.press("Alt+e")
    nodes = [page.locator("foreignObject").get_by_text(asset, exact=True) for asset in assets]
    for node in nodes:
        node.first.wait_for()
    page.get_by_text("Loading").first.wait_for(state="hidden")
    page.wait_for_timeout(_SETTLE)
    return [node.first for node in nodes]


def open_partition(page: Page, url: str, asset: str, partition: str) -> Locator:
    """Open an asset's page at one partition; returns the table of its metadata."""
    page.goto(f"{url}/assets/{asset}?view=partitions&partition={partition}")
    table = page.locator("table").filter(has_text="manifest").first
    table.wait_for()
    page.wait_for_timeout(_SETTLE)
    return table


def open_entry(page: Page, table: Locator, key: str) -> Locator:
    """Open the dialog of a long Markdown entry of the metadata; returns the dialog."""
    row = table.locator("tr").filter(has=page.get_by_text(key, exact=True))
    row.get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    page.wait_for_timeout(_SETTLE)
    return dialog


def ask_in_launchpad(page: Page, url: str, question: str, arguments: Sequence[str]) -> Locator:
    """Ask the job `ask` a question, as a user does; returns the dialog with its answer."""
    page.goto(f"{url}/locations/caploom/jobs/ask/playground")
    editor = page.locator(".CodeMirror").first
    editor.wait_for()
    config = {"ops": {"answer": {"config": {"question": question, "arguments": list(arguments)}}}}
    # The editor is asked to take the text: typed, it would indent every line once more.
    page.evaluate("text => document.querySelector('.CodeMirror').CodeMirror.setValue(text)", yaml.safe_dump(config))
    page.get_by_text("No errors").wait_for()
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    page.get_by_text("[Show Markdown]").click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    page.wait_for_timeout(_SETTLE)
    return dialog


def open_tagged(page: Page, url: str, captioner: str) -> None:
    """Open the list of what was made with a captioner."""
    page.goto(f"{url}/assets?asset-selection=tag%3A%22captioner%2F{captioner}%22")
    page.locator("a[href$='/assets/checkpoint']").first.wait_for()
    page.wait_for_timeout(_SETTLE)


def open_report(page: Page, url: str) -> Page:
    """Open the report's page by the link in the UI."""
    page.goto(f"{url}/assets/ablation_report")
    with page.context.expect_page() as opened:
        page.locator("tr").filter(has_text="report page").get_by_role("link").first.click()
    report = opened.value
    report.get_by_role("heading", level=1).wait_for()
    return report


def recipe_captioner(config: FactoryConfig) -> str:
    """A captioner to show."""
    return next(iter(config.captioners))


def asset_names(config: FactoryConfig) -> list[str]:
    """What the nodes of the lineage graph are called."""
    last = ["sheared_captions", "training_set", "checkpoint", "retrieval_metrics", "ablation_report"]
    return ["raw_pairs", *config.captioners, *last]


def fullest_recipe(config: FactoryConfig) -> Recipe:
    """The recipe of most captioners, the last of them: the one to show."""
    return max(reversed(config.expanded_recipes()), key=lambda recipe: len(recipe.captioners))


def take_all(config: FactoryConfig, browser: Browser, url: str, folder: Path) -> list[Path]:
    """Write every picture; returns the files."""
    recipe = fullest_recipe(config).name
    taken = []

    taken.append(_take_lineage(config, browser, url, folder / "lineage.png"))
    page = new_page(browser, 1500, 1060)
    open_entry(page, open_partition(page, url, "training_set", recipe), "gallery")
    taken.append(_shoot(page, folder / "gallery.png"))
    open_entry(page, open_partition(page, url, "sheared_captions", recipe), "lengths")
    taken.append(_shoot(page, folder / "caption-lengths.png"))
    table = open_partition(page, url, "retrieval_metrics", recipe)
    table.locator("table").first.scroll_into_view_if_needed()  # the Recall@K table is a table in a cell
    page.wait_for_timeout(_SETTLE)
    taken.append(_shoot(page, folder / "recipes.png"))
    page.goto(f"{url}/assets/retrieval_metrics")
    page.get_by_role("button", name="Plots").click()
    page.locator("canvas").first.wait_for()
    page.wait_for_timeout(_SETTLE)
    taken.append(_shoot(page, folder / "recall-plots.png"))
    open_tagged(page, url, recipe_captioner(config))
    taken.append(_shoot(page, folder / "captioner-tag.png"))
    ask_in_launchpad(page, url, "why", [recipe, "r1_i2t"])
    taken.append(_shoot(page, folder / "ask-why.png"))
    report = open_report(page, url)
    taken.append(_shoot(report, folder / "ablation-report.png"))
    report.locator(".queries").first.scroll_into_view_if_needed()
    taken.append(_shoot(report, folder / "report-queries.png"))
    return taken


def open_automation(page: Page, url: str, names: Sequence[str]) -> list[Locator]:
    """Open the page of sensors and schedules; returns the name of each of these."""
    page.goto(f"{url}/automation")
    found = [page.get_by_text(name, exact=True).first for name in names]
    for each in found:
        each.wait_for()
    page.wait_for_timeout(_SETTLE)
    return found


def take_automation(page: Page, url: str, path: Path) -> Path:
    """The automations of a factory with an inbox (the demo has none); called by a test of new images."""
    open_automation(page, url, ["inbox", "caption_new_shards"])
    page.wait_for_timeout(8_000)  # each line asks for its last tick and its switch by itself
    return _shoot(page, path)


def _take_lineage(config: FactoryConfig, browser: Browser, url: str, path: Path) -> Path:
    """The whole graph in a frame of its own height: Dagster fits the graph to the frame's width alone."""
    names = asset_names(config)
    page = new_page(browser, _LINEAGE_WIDTH, _TALL)
    boxes = [node.bounding_box() for node in open_lineage(page, url, names)]
    page.close()
    tops = [box["y"] for box in boxes if box is not None]
    page = new_page(browser, _LINEAGE_WIDTH, round(max(tops) - min(tops)) + _AROUND_GRAPH)
    for name, node in zip(names, open_lineage(page, url, names), strict=True):
        if not _is_in_frame(page, node):
            raise CaploomError(f"The asset {name} is out of the lineage picture's frame: make the picture larger.")
    try:
        return _shoot(page, path)
    finally:
        page.close()


def _shoot(page: Page, path: Path) -> Path:
    # 256 well spread colours look the same and take a third of the bytes, which stay in the repository forever.
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > _MOST_BYTES:
        raise CaploomError(f"{path}: {path.stat().st_size} bytes; a picture may have {_MOST_BYTES}: make it smaller.")
    return path


def _is_in_frame(page: Page, node: Locator) -> bool:
    box, size = node.bounding_box(), page.viewport_size
    if box is None or size is None:
        return False
    inside = box["x"] >= 0 and box["y"] >= 0
    return bool(inside and box["x"] + box["width"] <= size["width"] and box["y"] + box["height"] <= size["height"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_answer(child: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + _START_PATIENCE
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise CaploomError(f"The UI ended at its start with exit code {child.returncode}; its words are above.")
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=2):
                return
        except OSError:
            time.sleep(0.25)
    raise CaploomError(f"The UI does not answer at {url} after {_START_PATIENCE:.0f} s.")


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), default=DEMO_CONFIG, help="The factory's YAML.")
@click.option("--out", type=click.Path(path_type=Path), default=PICTURES, help="Folder of the pictures.")
def main(path: Path, out: Path) -> None:
    """Take the documentation's pictures from the UI of a finished factory."""
    try:
        config = load_config(path)
        browser_path = find_chromium()
        if browser_path is None:
            raise CaploomError(f"No browser found ({', '.join(_CHROMIUM_NAMES)}): install Chromium.")
        out.mkdir(parents=True, exist_ok=True)
        with running_ui(path.absolute()) as (_, url), chromium(browser_path) as browser:
            for file in take_all(config, browser, url, out):
                click.echo(f"{file}: {file.stat().st_size // 1000} kB")
    except CaploomError as error:
        click.echo(f"{error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
