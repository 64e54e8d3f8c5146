"""The `raw_pairs` stage: every row of a shard becomes a pair whose image really decodes, or a failure row."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from caploom.common.hashing import content_version
from caploom.common.progress import Progress
from caploom.config.factory import Factory
from caploom.errors import ImageFault
from caploom.images.location import Location
from caploom.images.moves import PACK, STAYED, Moves
from caploom.readers.checked_images import IdentifiedImage, checked_images
from caploom.readers.ingest_settings import IngestSettings
from caploom.readers.source_row import SourceRow
from caploom.stages.checks import ROWS_ACCOUNTED, CheckOutcome, accounted
from caploom.stages.graph import Graph, graph_of
from caploom.stages.moves import moves_of
from caploom.stages.shards import is_of_inbox, source_and_shard, source_fingerprint, source_of, sources_of
from caploom.stages.source_rows import shard_rows
from caploom.stages.stage import Alike, Checks, Configuration, Cost, Key, Making, Ref, Stage, Tools, by_rows
from caploom.storage.duckdb_connection import connection_to
from caploom.storage.key_index import KeyIndex
from caploom.storage.records import KEPT_IMAGES, PAIRS, pair_identity
from caploom.storage.store import Artifact, Draft
from caploom.storage.tables import (
    count_rows,
    damage_explained,
    failure,
    read_table,
    table_of,
    write_failures,
    write_table,
)

KIND = "raw_pairs"
CODE_VERSION = "2"
_KEPT = "kept.parquet"
PAIRS_FILE = "pairs.parquet"

Elsewhere = Callable[[Sequence[str]], Mapping[str, str]]
"""Tells which of some pairs another shard holds, with that shard's name."""


def ingest_shard(factory: Factory | Graph, shard: str, progress: Progress | None = None) -> Artifact:
    """Make a shard's raw pairs, unless they are made: `pairs.parquet` (schema PAIRS) and `failures.parquet`.

    Images that are not local files, and all of an inbox whose images are to be kept, are copied into `images.pack`. Of
    those kept, an earlier version's copies are read again: the inbox may have been emptied since, or changed.
    """
    return graph_of(factory).make(Ref(KIND, (shard,)), Tools(progress=progress))


def _build(making: Making, draft: Draft) -> None:
    (shard,), (listing,) = making.ref.key, making.inputs()
    rows = list(shard_rows(listing))
    keep_all = listing.manifest.configuration.get("keep") == "copy"
    kept = _kept_before(making.graph, shard) if keep_all else {}
    url = making.store.url_of(making.plan.address, PACK)
    with Pack(draft.folder / PACK, url, everything=keep_all) as pack:
        pairs, failures = validate_rows(
            rows,
            partial(pairs_elsewhere, making.graph, shard),
            making.tools.progress,
            bounds=making.config.ingest,
            pack=pack,
            kept=kept,
            moves=moves_of(making.graph),
        )
    if keep_all:
        write_table(table_of(pack.kept, KEPT_IMAGES), draft.folder / _KEPT)
    write_table(table_of(pairs, PAIRS), draft.folder / PAIRS_FILE)
    write_failures(failures, draft.folder)
    draft.rows = count_rows("rows of the source", len(rows), len(pairs), failures)
    draft.data_version = content_version(
        [*(pair["pair_id"] for pair in pairs), *(f"{f['key']}\t{f['reason']}" for f in failures)]
    )
    images = len({pair["image_id"] for pair in pairs})
    draft.summary = {"pairs": len(pairs), "images": images, "packed_bytes": pack.size}
    if uncaptioned := sum(not pair["raw_caption"] for pair in pairs):
        draft.summary["uncaptioned"] = uncaptioned


def _kept_before(graph: Graph, shard: str) -> dict[str, str]:
    """Where earlier versions of a shard's raw pairs keep the images that its rows name."""
    kept: dict[str, str] = {}
    for artifact in graph.store.list(KIND, source_of(graph, shard), shard):
        if _KEPT in artifact.manifest.files:
            table = read_table(artifact.file(_KEPT))
            kept.update(zip(table["location"].to_pylist(), table["kept"].to_pylist(), strict=True))
    return kept


def ingested_shards(factory: Factory | Graph) -> list[Artifact]:
    """The present raw pairs of every shard that has been ingested, in the shards' order; older versions don't count."""
    graph = graph_of(factory)
    return graph.existing(graph.refs(KIND))


def shards_to_ingest(factory: Factory) -> list[str]:
    """The shards of the source (not the inbox's) that are not ingested yet."""
    graph = graph_of(factory)
    return [shard for shard in graph.shards if not is_of_inbox(shard) and graph.find(Ref(KIND, (shard,))) is None]


def validate_rows(
    rows: Sequence[SourceRow],
    elsewhere: Elsewhere = lambda pair_ids: {},
    progress: Progress | None = None,
    *,
    bounds: IngestSettings | None = None,
    pack: "Pack | None" = None,
    kept: Mapping[str, str] | None = None,
    moves: Moves = STAYED,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Really decode each row's image; returns the pairs (as PAIRS) and the failures, together as many as the rows.

    An image is read once, however many captions it has: each caption is a pair of the one image. `kept` says of
    locations where a copy of what they held is to be read instead, and `moves` where either lies now.
    """
    bounds = bounds or IngestSettings()
    usable: dict[str, list[int]] = {}  # the rows' positions, by location
    failed: dict[int, ImageFault] = {}
    for position, row in enumerate(rows):
        try:
            usable.setdefault(_usable(row, bounds), []).append(position)
        except ImageFault as fault:
            failed[position] = fault
    made: dict[int, dict[str, Any]] = {}
    copies = kept or {}
    found = checked_images(moves.present(copies.get(location, location)) for location in usable)
    for location, (_, image) in zip(usable, found, strict=True):
        try:
            if isinstance(image, ImageFault):
                raise image
            # Before the bounds: other ones may let it in later, when the inbox is empty.
            path = pack.place(location, image) if pack is not None else location
            bounds.check_size(image.checked.width, image.checked.height, location)
            made |= {position: _pair(rows[position], image, path) for position in usable[location]}
        except ImageFault as fault:
            failed |= dict.fromkeys(usable[location], fault)
        if progress is not None:
            progress(len(made) + len(failed), len(rows), len(failed))
    return _settle(rows, made, failed, elsewhere)


def _usable(row: SourceRow, bounds: IngestSettings) -> str:
    """The location of a row's image; raises `ImageFault` when the row cannot become a pair whatever the image is."""
    if row.lacks_only_a_caption and bounds.raw_captions == "optional":
        return str(row.path)
    if row.reason is not None or row.path is None or row.caption is None:
        raise ImageFault(row.reason or "bad_row", row.detail or f"row {row.row}: it names no image.")
    bounds.check_caption(row.caption, f"row {row.row}")
    return row.path


def _pair(row: SourceRow, image: IdentifiedImage, path: str) -> dict[str, Any]:
    return {
        "pair_id": pair_identity(image.image_id, row.caption or ""),
        "image_id": image.image_id,
        "image": row.image,
        "path": path,
        "raw_caption": row.caption or "",
        "width": image.checked.width,
        "height": image.checked.height,
        "row": row.row,
        "phash": image.checked.phash,
    }


def _settle(
    rows: Sequence[SourceRow],
    made: Mapping[int, dict[str, Any]],
    failed: Mapping[int, ImageFault],
    elsewhere: Elsewhere,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs and failures in the rows' order.

    A pair that is there already, here or in another shard, is a failure; and so is a lacking caption of an image that
    another row captions.
    """
    pairs: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, Any]] = []
    others = elsewhere([pair["pair_id"] for pair in made.values()])
    captioned = {pair["image_id"] for pair in made.values() if pair["raw_caption"]}
    for position, row in enumerate(rows):
        fault = failed.get(position)
        if fault is None:
            pair = made[position]
            if not pair["raw_caption"] and pair["image_id"] in captioned:
                failures.append(failure(KIND, str(row.row), row.image, str(row.reason), str(row.detail)))
                continue
            known = pairs.get(pair["pair_id"])
            where = f"row {known['row']}" if known else others.get(pair["pair_id"])
            if where is None:
                pairs[pair["pair_id"]] = pair
                continue
            what = "with the same caption" if row.caption else "without a caption"
            detail = f"row {row.row}: the same image {what} already stands in {where}."
            fault = ImageFault("duplicate_pair", detail)
        failures.append(failure(KIND, str(row.row), row.image, fault.reason, fault.detail))
    return list(pairs.values()), failures


class Pack(AbstractContextManager["Pack"]):
    """Copies of images in one file, each once.

    file: where it is written. final: where it will lie. everything: also those that later stages could read in place.
    """

    def __init__(self, file: Path, final: str, *, everything: bool) -> None:
        self._path, self._final, self._everything = file, final, everything
        self._file: BinaryIO | None = None
        self._places: dict[str, str] = {}
        self.kept: list[dict[str, str]] = []  # rows of KEPT_IMAGES
        self.size = 0

    def place(self, location: str, image: IdentifiedImage) -> str:
        """Where later stages read the image: as it is, or in the pack."""
        if not self._everything and Location.parse(location).is_local_range_or_file:
            return location
        known = self._places.get(image.image_id)
        if known is None:
            if self._file is None:
                self._file = self._path.open("wb")
            self._file.write(image.data)
            known = str(Location(self._final, offset=self.size, length=len(image.data)))
            self._places[image.image_id] = known
            self.size += len(image.data)
        self.kept.append({"location": location, "kept": known})
        return known

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def pairs_elsewhere(graph: Graph, own: str, pair_ids: Sequence[str]) -> dict[str, str]:
    """Of these pairs, the ones that another shard than one's own holds, with its name; those are not held in memory."""
    store = graph.store
    # Looked at anew: other shards may have been ingested since this run began.
    fresh = Graph(graph.factory)
    shards = {}
    for source in sources_of(graph):
        store.refresh_throttled(KIND, source)
        for address in KeyIndex(store, f"{KIND}/{source}", PAIRS_FILE, "pair_id").holders(pair_ids):
            shard = address.split("/")[2]
            if shard != own and _is_present(fresh, shard, address):
                shards[f"{store.tables_root}/{address}/{PAIRS_FILE}"] = shard
    if not shards:
        return {}
    with damage_explained(store.path(KIND)), connection_to(store) as connection:
        connection.register("wanted", pa.table({"pair_id": list(pair_ids)}))
        query = (
            "select distinct pair_id, filename from read_parquet(?, filename = true) semi join wanted using (pair_id)"
        )
        rows = connection.execute(query, [[*shards]]).fetchall()
    return {pair_id: shards[file] for pair_id, file in rows}


def _is_present(graph: Graph, shard: str, address: str) -> bool:
    """Whether raw pairs are those of a shard as it is now, and not an older version's."""
    there = graph.find(Ref("shards", (shard,))) is not None
    return there and graph.plan(Ref(KIND, (shard,))).address == address


def read_pairs(artifact: Artifact) -> pa.Table:
    """The pairs of an ingested shard (schema PAIRS)."""
    return read_table(artifact.file(PAIRS_FILE))


def captioned(pairs: pa.Table) -> pa.Table:
    """The pairs that came with a caption; `pairs` has the column `raw_caption`, as all that Caploom writes of them."""
    return pairs.filter(pc.not_equal(pairs.column("raw_caption"), ""))


def raw_lengths(factory: Factory | Graph, shard: str | None = None) -> Counter[int]:
    """How many raw captions of a shard, or of all ingested shards, have how many words."""
    graph = graph_of(factory)
    artifacts = ingested_shards(graph) if shard is None else [graph.require(Ref(KIND, (shard,)))]
    tables = (captioned(read_table(artifact.file(PAIRS_FILE), ["raw_caption"])) for artifact in artifacts)
    return Counter(len(caption.split()) for table in tables for caption in table.column("raw_caption").to_pylist())


def rows_of(graph: Graph, shard: str) -> int:
    """The rows of the source in a shard, whether it is cut or only expected."""
    listing = graph.find(Ref("shards", (shard,)))
    return listing.manifest.summary["rows"] if listing is not None else graph.expected.get(shard, 0)


def raw_captions_in(graph: Graph, shard: str) -> int:
    """The raw captions of a shard; its rows, which are at least as many, while it is not ingested."""
    pairs = graph.find(Ref(KIND, (shard,)))
    if pairs is None or pairs.manifest.rows is None:
        return rows_of(graph, shard)
    return pairs.manifest.rows.rows_out - int(pairs.manifest.summary.get("uncaptioned", 0))


def images_in(graph: Graph, shard: str) -> int:
    """The distinct images of a shard; its rows, which are at least as many, while it is not ingested."""
    pairs = graph.find(Ref(KIND, (shard,)))
    return pairs.manifest.summary["images"] if pairs is not None else rows_of(graph, shard)


def _configuration(graph: Graph, key: Key) -> Configuration:
    bounds = graph.fact(("ingest",), graph.config.ingest.fingerprinted)
    return {"shard": key[0], **({"ingest": bounds} if bounds else {})}


def _alike(graph: Graph, key: Key) -> list[Alike]:
    source = source_fingerprint(graph)
    return [Alike("rows of this source", (source,)), Alike("rows of other sources")]


def check_raw_pairs(graph: Graph, artifact: Artifact) -> list[CheckOutcome]:
    """Rows of the source in = pairs + failures."""
    listing = graph.require(Ref("shards", (artifact.manifest.configuration["shard"],)))
    rows_in = len(read_table(listing.file("rows.parquet"), ["row"]))
    return [accounted(rows_in, len(read_pairs(artifact)), len(read_table(artifact.file("failures.parquet"))))]


RAW_PAIRS = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("shard",),
    keys=lambda graph: graph.keys("shards"),
    settings=_configuration,
    build=_build,
    upstream=("shards",),
    inputs=lambda graph, key: [Ref("shards", key)],
    name=source_and_shard,
    name_parts=("#source", "shard"),
    shown=lambda configuration: {"ingest": configuration.get("ingest", {})},
    words=lambda configuration: "",
    cost=Cost(
        unit="rows",
        line=lambda graph, key: "rows of the source",
        units=lambda graph, keys: (sum(rows_of(graph, shard) for (shard,) in keys), True),
        shared_by=lambda graph, keys: len({recipe.base for recipe in graph.recipes.values()}),
        measured=by_rows,
        alike=_alike,
        verb="read",
    ),
    tables={PAIRS_FILE: PAIRS},
    texts="select image_id, 'raw' as source, raw_caption as said from read_parquet(?)",
    images=PAIRS_FILE,
    reads_images=True,
    checks=Checks((ROWS_ACCOUNTED,), check_raw_pairs),
    remake="caploom.reproduce.remake:ingest",
)
