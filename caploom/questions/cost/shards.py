"""The shards of a cost plan: those that are cut, and those that the source's new rows will be cut into."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from caploom.captioning.ledger import Ledger
from caploom.config.factory import Factory
from caploom.questions.status.versions import Versions
from caploom.readers.picture_book import PictureBookReader
from caploom.stages.captions import captions_plan, captions_stage, read_failures, shard_images
from caploom.stages.raw_pairs import raw_pairs_stage
from caploom.stages.shards import list_shards, new_rows
from caploom.storage.records import pair_identity
from caploom.storage.store import Artifact

_AT_ONCE = 100_000  # images that the ledger is asked about in one go


@dataclass(frozen=True)
class CostShard:
    """A shard, cut or to be cut.

    Attributes:
        name: its name.
        rows: rows of the source in it.
        images: distinct images in it; its rows, which are at least as many, while it is not ingested.
        pairs: its raw pairs, once ingested.
        captions: by captioner, its captions once they are made.
    """

    name: str
    rows: int
    images: int
    pairs: Artifact | None
    captions: Mapping[str, Artifact | None]

    @property
    def raw(self) -> int:
        """Its raw captions."""
        return _rows_out(self.pairs, self.rows)

    def said(self, captioner: str) -> int:
        """A captioner's captions: all that it may make, while it has not made them."""
        return _rows_out(self.captions[captioner], self.images)


def _rows_out(artifact: Artifact | None, otherwise: int) -> int:
    return otherwise if artifact is None or artifact.manifest.rows is None else artifact.manifest.rows.rows_out


def cost_shards(factory: Factory, versions: Versions, fingerprints: Mapping[str, str]) -> list[CostShard]:
    """Every shard of the source, in order; `fingerprints` are the captioners'."""
    shards = [_cut(factory, versions, fingerprints, listing) for listing in list_shards(factory)]
    rows, size = _uncut_rows(factory, sum(shard.rows for shard in shards)), factory.config.shard_size
    nothing = dict.fromkeys(fingerprints)
    for start in range(0, rows, size):
        count = min(size, rows - start)
        shards.append(CostShard(f"shard-{len(shards):05d}", count, count, None, nothing))
    return shards


def _cut(factory: Factory, versions: Versions, fingerprints: Mapping[str, str], listing: Artifact) -> CostShard:
    name, rows = listing.manifest.configuration["shard"], listing.manifest.summary["rows"]
    pairs = versions.find(raw_pairs_stage(factory, name).of([listing.as_input()]))
    if pairs is None:
        return CostShard(name, rows, rows, None, dict.fromkeys(fingerprints))
    captions = {
        captioner: versions.find(
            captions_stage(factory, captioner, name, fingerprint=fingerprint).of([pairs.as_input()])
        )
        for captioner, fingerprint in fingerprints.items()
    }
    return CostShard(name, rows, pairs.manifest.summary["images"], pairs, captions)


def _uncut_rows(factory: Factory, in_shards: int) -> int:
    """Rows of the source that no shard holds; pictures that are not drawn yet are not drawn to be counted."""
    reader = factory.config.pairs
    if isinstance(reader, PictureBookReader) and not reader.is_drawn:
        return max(0, reader.scenes - in_shards)
    return sum(1 for _ in new_rows(factory))


def missing_rows(shards: Iterable[CostShard]) -> int:
    """The rows of the source in these shards."""
    return sum(shard.rows for shard in shards)


def images_to_caption(
    factory: Factory, captioner: str, fingerprint: str, shards: Sequence[CostShard]
) -> tuple[int, bool]:
    """How many images of these shards a captioner would be shown, and whether that is certain.

    Those that the ledger knows are left out, and those that it failed on too often; an image of two shards counts once.
    """
    ledger = Ledger(factory.store, captioner, fingerprint)
    ingested = [shard for shard in shards if shard.pairs is not None]
    wanted: dict[tuple[str, str], None] = {}
    count = 0
    for shard in ingested:
        wanted.update(dict.fromkeys(_asked(factory, captioner, shard.name)))
        if len(wanted) >= _AT_ONCE:
            count += _missing(ledger, list(wanted))
            wanted = {}
    count += _missing(ledger, list(wanted))
    return count + missing_rows(shard for shard in shards if shard.pairs is None), len(ingested) == len(shards)


def _asked(factory: Factory, captioner: str, shard: str) -> list[tuple[str, str]]:
    """Image and pair of what a shard asks of a captioner; the pair is empty where the prompt quotes no raw caption."""
    settings = factory.config.captioners[captioner]
    given_up: set[str] = set()
    retries = captions_plan(factory, captioner, shard).configuration.get("retries", 0)
    if retries:
        earlier = factory.store.find(captions_plan(factory, captioner, shard, retries=retries - 1))
        failures = read_failures(earlier) if earlier is not None else []
        given_up = {row["key"] for row in failures if row["attempt"] >= settings.max_attempts}
    return [
        (ref.image_id, pair_identity(ref.image_id, ref.raw_caption) if settings.needs_raw_caption else "")
        for ref in shard_images(factory, shard)
        if ref.image_id not in given_up
    ]


def _missing(ledger: Ledger, asked: Sequence[tuple[str, str]]) -> int:
    """How many of these the ledger lacks."""
    images, pairs = [image for image, _ in asked], [pair for _, pair in asked if pair]
    return len(ledger.missing(images, pairs or None))
