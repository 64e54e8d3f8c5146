"""What a checkpoint's number is based on: its training, its training set, and the captions' sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caploom.common.names import RAW_SOURCE
from caploom.stages.checkpoint import FINE_TUNED, ZERO_SHOT
from caploom.stages.words import captioner_in_words, filters_in_words, mix_in_words, steps_in_words, trainer_in_words
from caploom.storage.manifest import Manifest
from caploom.storage.store import Store
from caploom.storage.tables import read_first, read_table

_EXHIBITS = 3


@dataclass(frozen=True)
class WhyTraining:
    """A checkpoint: how it was trained."""

    stage: str
    address: str
    started: str
    configured: str
    steps: int | None
    samples: int | None
    seed: int | None
    seconds: float | None
    final_loss: float | None
    device: str


@dataclass(frozen=True)
class WhySource:
    """One source of a training set's captions: the raw captions or a captioner.

    `captions_share` is the fraction of all captions, `samples_share` that of expected draws; `images_lacking`
    is the number of images without it. The words are means before and after the shear, None for the raw captions.
    """

    source: str
    captions: int
    captions_share: float
    samples_share: float
    images_lacking: int | None
    words_in_training: float | None
    words_before: float | None
    words_after: float | None
    share_cut: float | None
    configured: str


@dataclass(frozen=True)
class WhyTrainingSet:
    """A training set: its content, dropped captions with reasons, its captions' sources, and a few of its rows."""

    address: str
    started: str
    images: int
    captions: int
    captions_in: int
    dropped: dict[str, int]
    filters: str
    mix: str
    shear: str
    sources: tuple[WhySource, ...]
    rows: tuple[dict[str, Any], ...]


def training_of(manifest: Manifest) -> WhyTraining:
    """How a checkpoint was trained."""
    summary = manifest.summary
    return WhyTraining(
        stage=FINE_TUNED if manifest.kind == "finetuned_checkpoint" else ZERO_SHOT,
        address=manifest.address,
        started=manifest.started,
        configured=trainer_in_words(manifest.configuration),
        steps=summary.get("steps"),
        samples=summary.get("samples_seen"),
        seed=manifest.configuration.get("seed"),
        seconds=summary.get("seconds"),
        final_loss=summary.get("final_loss"),
        device=manifest.device,
    )


def training_set_of(
    store: Store, manifest: Manifest, sheared: Manifest | None, captioners: dict[str, dict[str, Any]], steps: Any
) -> WhyTrainingSet:
    """A training set, with the settings of its captioners by their names and the steps of its shear."""
    summary, configuration = manifest.summary, manifest.configuration
    counts, rows = summary.get("captions_by_source", {}), manifest.rows
    images = summary.get("images", 0)
    shares, of_images = _samples(store, manifest)
    shorn = {each["captioner"]: each for each in (sheared.summary.get("captioners", []) if sheared else [])}
    total = sum(counts.values()) or 1
    sources = []
    for source in dict.fromkeys([RAW_SOURCE, *configuration["captioners"], *counts]):
        cut, has = shorn.get(source, {}), of_images.get(source, 0)
        settings = captioners.get(source)
        sources.append(
            WhySource(
                source=source,
                captions=counts.get(source, 0),
                captions_share=counts.get(source, 0) / total,
                samples_share=shares.get(source, 0.0),
                images_lacking=images - has,
                words_in_training=summary.get("mean_words_by_source", {}).get(source),
                words_before=cut.get("mean_words_before"),
                words_after=cut.get("mean_words_after"),
                share_cut=cut.get("share_cut"),
                configured=captioner_in_words(settings) if settings else "",
            )
        )
    return WhyTrainingSet(
        address=manifest.address,
        started=manifest.started,
        images=images,
        captions=summary.get("captions", 0),
        captions_in=rows.rows_in if rows else summary.get("captions", 0),
        dropped=dict(rows.reasons) if rows else {},
        filters=filters_in_words(configuration["filters"]),
        mix=mix_in_words(configuration["mix"]),
        shear=_shear(sheared, steps),
        sources=tuple(sources),
        rows=tuple(_first_rows(store, manifest)),
    )


def _shear(sheared: Manifest | None, steps: Any) -> str:
    name = sheared.configuration.get("shear", "") if sheared else ""
    if name in ("", "none"):
        return "not sheared"
    return f"{name} ({steps_in_words(steps)})" if steps is not None else name


def _samples(store: Store, manifest: Manifest) -> tuple[dict[str, float], dict[str, int]]:
    """Each source's fraction of the samples and number of images.

    The merge writes both into the summary; for older sets they are counted, unless nothing was dropped and every image
    has every source once, so that the numbers follow from the totals.
    """
    summary, counts = manifest.summary, manifest.summary.get("captions_by_source", {})
    if "sample_share_by_source" in summary and "images_by_source" in summary:
        return summary["sample_share_by_source"], summary["images_by_source"]
    uniform = manifest.configuration["mix"]["strategy"] in ("uniform", "multi_positive", "concatenate")
    nothing_lost = manifest.rows is not None and manifest.rows.rows_failed == 0
    if uniform and nothing_lost and counts and all(count == summary["images"] for count in counts.values()):
        return {source: 1 / len(counts) for source in counts}, dict(counts)
    from caploom.training_set.samples import Samples

    samples = Samples()
    for file in _row_files(manifest):
        samples.add(read_table(store.file(manifest.address, file), ["image_id", "sources", "weights"]))
    return samples.shares(list(samples.drawn)), dict(samples.images)


def _first_rows(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    files = _row_files(manifest)
    if not files:
        return []
    rows = read_first(store.file(manifest.address, files[0]), _EXHIBITS).to_pylist()
    return [
        {
            "image_id": row["image_id"],
            "image": row["image"],
            "path": row["path"],
            "captions": [
                {"source": source, "weight": round(weight, 6), "caption": caption}
                for source, weight, caption in zip(row["sources"], row["weights"], row["captions"], strict=True)
            ],
        }
        for row in rows
    ]


def _row_files(manifest: Manifest) -> Sequence[str]:
    return sorted(name for name in manifest.files if name.startswith("rows-"))
