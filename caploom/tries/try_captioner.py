"""Has a captioner caption a few images before a run pays for all.

What it says goes into the captioner's ledger, so that a run does not ask for it again; only as much is cut and ingested
as these images need.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from caploom.captioning.backend import Backend, ImageRef, load_backend
from caploom.captioning.settings import CaptionerSettings
from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.errors import CaploomError, ConfigError
from caploom.inbox.scan import take_everything
from caploom.shearing.settings import ShearStep
from caploom.stages.captioner_tokens import check_tokenizers
from caploom.stages.captions import captioner_settings, generate, ledger_of, read_failures, shard_images, shard_work
from caploom.stages.captions_work import Outcome, ShardWork
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import ingest_shard
from caploom.stages.raw_words import corpus_words_so_far
from caploom.stages.shards import create_new_shards, shard_names
from caploom.stages.sheared import shear_captions
from caploom.stages.stage import Ref
from caploom.storage.store import Plan, Store
from caploom.tries.tried import CaptionerTry, Span, TriedImage

IMAGES = 8
"""How many images a captioner is tried on, unless told."""

FOLDER = "tries"
"""The store's folder of the pages."""

LoadCaptioner = Callable[[CaptionerSettings, Store], Backend]


def try_captioner(
    factory: Factory,
    captioner: str,
    images: int = IMAGES,
    *,
    load: LoadCaptioner = load_backend,
    progress: Progress | None = None,
) -> CaptionerTry:
    """Have a captioner caption the first images of the first shard, unless it has; its texts are kept for a run.

    Cuts the source into shards if there are none, ingests the first one, and writes a page of the pictures and texts
    into the store (`tries/<captioner>.html`). An image that failed is asked about again by the next try or run.

    Raises `ConfigError` for an unknown captioner, `CaptionerError` when it does not load, `CanaryError` when its
    batches cannot be trusted, and `CaploomError` when there is no image.

    Example:
        >>> tried = try_captioner(factory, "colours", images=2)
        >>> [(image.image, image.text) for image in tried.images]
        [('0000.png', 'A red square. It is said to hide a dragon.'), ('0001.png', 'A green square. ...')]
        >>> tried.images[0].parts("first")
        ('', 'A red square.', ' It is said to hide a dragon.')
    """
    settings = captioner_settings(Graph(factory), captioner)
    if images < 1:
        raise ConfigError(f"images is {images}, and a captioner is tried on at least one; ask for 1 or more.")
    shears = _shears(factory, captioner)
    shard = _first_shard(factory)
    graph = Graph(factory)
    ingest_shard(graph, shard)
    refs = shard_images(graph, shard)
    if not refs:
        raise CaploomError(
            f"{shard} has no image that can be captioned; `caploom failures` says what is wrong with each."
        )
    started = time.perf_counter()
    plan = graph.plan(Ref("captions", (captioner, shard)))
    with ExitStack() as stack:

        def load_once() -> Backend:
            backend = load(settings, factory.store)
            stack.callback(backend.close)
            return backend

        work, outcome = _captioned(graph, plan, refs, refs[:images], load_once, progress)
    tried = CaptionerTry(
        captioner=captioner,
        model=settings.label,
        shard=shard,
        images=_images(graph, work, outcome, shears),
        shears=tuple(shears),
        generated=outcome.asked,
        seconds=round(time.perf_counter() - started, 3),
        page=factory.store.path(f"{FOLDER}/{captioner}.html"),
    )
    tried.page.parent.mkdir(parents=True, exist_ok=True)
    factory.store.put_shared(tried.page, tried.page_html().encode("utf-8", "xmlcharrefreplace"))
    return tried


def _shears(factory: Factory, captioner: str) -> dict[str, list[ShearStep]]:
    """The shears that recipes apply to a captioner; one that cannot be applied is refused before anything is paid."""
    used = {recipe.shear for recipe in factory.config.expanded_recipes() if captioner in recipe.captioners}
    shears = {name: steps for name, steps in factory.config.shears.items() if name in used and steps}
    for steps in shears.values():
        check_tokenizers(factory.config, captioner, steps)
    return shears


def _first_shard(factory: Factory) -> str:
    """The first shard. Rows are cut only if there is none yet, and those of an inbox only if the source has none."""
    names = shard_names(factory) or create_new_shards(factory)
    if not names:
        take_everything(factory)
        names = shard_names(factory)
    if not names:
        raise CaploomError("There are no rows, so there is nothing to caption; check `pairs` or `inbox` in the YAML.")
    return names[0]


def _captioned(
    graph: Graph,
    plan: Plan,
    refs: Sequence[ImageRef],
    chosen: Sequence[ImageRef],
    load: Callable[[], Backend],
    progress: Progress | None,
) -> tuple[ShardWork, Outcome]:
    """The work on the chosen images of a shard, done, and what came of it."""
    captioner, shard = plan.configuration["captioner"], plan.configuration["shard"]
    work = shard_work(graph, captioner, shard, plan, chosen)
    if not work.missing:
        return work, Outcome()  # without the claim, which a run may hold for hours
    with ledger_of(graph.factory, plan).claimed(shard):
        finished = graph.store.find(plan)
        if finished is not None:  # and failed on the images that are still missing
            return work, Outcome(failures=read_failures(finished))
        work = shard_work(graph, captioner, shard, plan, chosen)
        # The canary is of the whole shard, as a run's: of a few images alike it would prove little, and it is kept.
        return work, generate(work, load, progress, canary=refs)


def _images(
    graph: Graph, work: ShardWork, outcome: Outcome, shears: dict[str, list[ShearStep]]
) -> tuple[TriedImage, ...]:
    captions = work.captions()
    ids: list[str] = captions.column("image_id").to_pylist()
    texts = dict(zip(ids, captions.column("text").to_pylist(), strict=True))
    kept: dict[str, dict[str, Span]] = {image_id: {} for image_id in ids}
    for name, steps in shears.items():
        corpus = corpus_words_so_far(graph, steps)
        sheared = shear_captions(graph, captions, work.captioner, work.shard, steps, corpus)
        spans = zip(ids, sheared.column("start").to_pylist(), sheared.column("end").to_pylist(), strict=True)
        for image_id, start, end in spans:
            kept[image_id][name] = (start, end)
    failed: dict[str, dict[str, Any]] = {row["key"]: row for row in (*outcome.failures, *work.given_up.values())}
    return tuple(
        TriedImage(
            image_id=ref.image_id,
            image=ref.image,
            path=ref.path,
            raw_caption=ref.raw_caption,
            text=texts.get(ref.image_id, ""),
            kept=kept.get(ref.image_id, {}),
            reason=failed[ref.image_id]["reason"] if ref.image_id not in texts else "",
            detail=failed[ref.image_id]["detail"] if ref.image_id not in texts else "",
        )
        for ref in work.images
    )
