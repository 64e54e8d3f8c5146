"""Captions of a folder of pictures in one call: a captions-only factory is written beside the captions and run."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from caploom.captioning.backend import load_backend
from caploom.common.progress import track
from caploom.config.factory import Factory
from caploom.config.factory_config import FactoryConfig, load_config, parse_config
from caploom.errors import CaploomError, ConfigError
from caploom.exports.caption_files import check_form, write_captions
from caploom.questions.failures import current_failures
from caploom.scaffold.captioner_choice import Chosen, choose_captioners
from caploom.scaffold.look import look
from caploom.stages.captions import caption_shard
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard, ingested_shards
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_captioners
from caploom.storage.paths import is_url
from caploom.storage.writing import write_atomically

CONFIG = "caploom.yaml"
"""The YAML of the factory, in its folder; `caploom ui` and all other commands take it."""

_SHEAR = "shear"


@dataclass(frozen=True)
class CaptionJob:
    """What is to be captioned, by whom, and where the captions go.

    Attributes:
        source: a folder, table or tar of pictures, or the URL of one.
        captioners: names of presets.
        out: the file or folder of captions; see `write_captions`.
        shear: rules in the YAML's own words, such as `first_sentence` or `max_words: 20`; none keeps captions whole.
        url: address of the server, of presets that need one.
        store: folder of the factory; by default `<out>.factory`.
    """

    source: str
    captioners: tuple[str, ...]
    out: Path
    shear: tuple[str, ...] = ()
    url: str | None = None
    store: Path | None = None


@dataclass(frozen=True)
class Captioned:
    """What came of it: captions written, images with at least one row of the source, failed rows by reason."""

    captions: int
    images: int
    failures: Mapping[str, int]
    config: Path


def caption_source(job: CaptionJob, say: Callable[[str], None] = lambda sentence: None) -> Captioned:
    """Caption every picture of a source, and write the captions; what an earlier call has made is used again.

    Raises `CaploomError` when the source holds no picture, or a captioner does not fit this machine or does not load.

    Example:
        >>> job = CaptionJob("images", ("demo:tiny-llava",), Path("cats.jsonl"))
        >>> caption_source(job).captions
        1
    """
    check_form(job.out)
    folder = job.store or job.out.with_name(f"{job.out.name}.factory")
    _check_outside(job.source, job.out, folder)
    path = _write_config(job, folder)
    config = load_config(path)
    factory = Factory.from_config(config)
    create_new_shards(factory)
    shards = shard_names(factory)
    if not shards:
        raise CaploomError(f"{job.source}: there is no picture in it, so there is nothing to caption.")
    with track("pictures", "rows", parts=len(shards)) as bar:
        for shard in shards:
            ingest_shard(factory, shard, bar.part())
    graph = Graph(factory)
    images = sum(int(each.manifest.summary["images"]) for each in ingested_shards(graph))
    if not images:
        [_, first] = next(iter(current_failures(factory)))
        raise CaploomError(f"{job.source}: none of its {len(shards):,} shards has a usable picture; {first['detail']}")
    for name, settings in config.captioners.items():
        say(f"{name}: {settings.label}")
        load = partial(load_backend, settings, factory.store)
        with track(name, "images", parts=len(shards)) as bar:
            for shard in shards:
                caption_shard(factory, name, shard, load, bar.part())
    [recipe] = config.expanded_recipes()
    graph = Graph(factory)
    shear_captioners(graph, recipe.shear, recipe.captioners)
    count = write_captions(graph, recipe.captioners, recipe.shear, job.out)
    reasons = Counter(row["reason"] for _, row in current_failures(factory))
    return Captioned(count, images, dict(reasons.most_common()), path)


def _check_outside(source: str, *written: Path) -> None:
    """Refuse what would be written among the pictures: the next call would read it as theirs."""
    folder = Path(source).resolve()
    for path in written:
        if not is_url(source) and folder.is_dir() and path.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{path}: it would lie in {source}, where the next call would take it for data; name a place outside."
            )


def _write_config(job: CaptionJob, folder: Path) -> Path:
    """Write the factory's YAML into its folder, once it is known to be valid."""
    settings: dict[str, Any] = {
        "name": "captions",
        "store": ".",
        "pairs": dict(look(job.source).pairs),
        "captioners": {each.name: _captioner(each, job.url) for each in choose_captioners(job.captioners)},
    }
    if job.shear:
        settings["shears"] = {_SHEAR: [_rule(text) for text in job.shear]}
    parsed = parse_config(settings, base=folder.absolute(), source="caploom caption")
    _check_captioners(parsed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        write_atomically(folder / CONFIG, text.encode())
    except OSError as error:
        raise ConfigError(f"{folder}: it cannot be written ({error.strerror}); choose another --store.") from None
    return folder / CONFIG


def _captioner(chosen: Chosen, url: str | None) -> dict[str, Any]:
    lacking = chosen.to_fill_in()
    if url is not None and "url" in lacking:
        return {"preset": chosen.preset, "url": url}
    for key, (example, what) in lacking.items():
        how = (
            f"give it, as in --url {example}" if key == "url" else "write a YAML with `caploom init` and edit it there"
        )
        raise ConfigError(f"--captioner {chosen.preset}: it lacks `{key}`, {what}; {how}.")
    return {"preset": chosen.preset}


def _check_captioners(config: FactoryConfig) -> None:
    for name, settings in config.captioners.items():
        if settings.needs_raw_caption:
            raise ConfigError(
                f"--captioner {name}: its prompt quotes the raw caption, which pictures alone do not have; "
                "choose another, or write a YAML."
            )


def _rule(text: str) -> Any:
    """A rule as the YAML has it: a name, or a name and its parameter."""
    try:
        return yaml.safe_load("{" + text + "}") if ":" in text else text
    except yaml.YAMLError:
        raise ConfigError(f"--shear {text!r}: write a rule such as first_sentence, or 'max_words: 20'.") from None
