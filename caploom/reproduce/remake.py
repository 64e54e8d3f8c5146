"""How artifacts are rebuilt: by their stage, in a graph whose store holds what they were made from.

Most need no more. What a stage asks of other artifacts than its inputs is brought here, by the function that its
declaration names: the shards beside one, an earlier attempt, scores.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any, ClassVar

from caploom.captioning.backend import load_backend
from caploom.config.factory import Factory
from caploom.readers.source_row import SourceRow
from caploom.reproduce.fresh_store import ancestors_of, link_into, name_of
from caploom.reproduce.rebuild import NotReproducibleError, rebuilt_captioner, rebuilt_config
from caploom.stages.canaries import pass_canary
from caploom.stages.captions import images_of
from caploom.stages.graph import Graph
from caploom.stages.known_source import rows_as_recorded, source_moves
from caploom.stages.moves import moves_of
from caploom.stages.registry import load_stage
from caploom.stages.resized_images import resized_images
from caploom.stages.shards import INBOX, create_new_shards, source_in
from caploom.stages.source_rows import row_digest, shard_rows
from caploom.stages.stage import Tools
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Store

_CLOCK = 1.0
"""Seconds by which a manifest's `started` may be too early."""


@dataclass(frozen=True)
class Work:
    """An artifact to be rebuilt.

    Attributes:
        recorded: its manifest.
        graph: of a fresh store with what it was made from, and of the configuration of then.
        original: the factory it comes from, with the YAML's configuration as it is now.
        tools: what it is made with.
    """

    recorded: Manifest
    graph: Graph
    original: Factory
    tools: Tools

    @property
    def name(self) -> list[str]:
        """The parts of its name."""
        return name_of(self.recorded).split("/")

    def originals(self, *parts: str) -> list[Artifact]:
        """The artifacts of the original store below a kind or name."""
        return self.original.store.list(*parts)

    def add(self, artifacts: Iterable[Artifact]) -> None:
        """Have the fresh store hold artifacts of the original one."""
        link_into(self.graph.store, artifacts)

    def make(self) -> None:
        """Have the stage make it, as it makes any."""
        self.graph.make(self.graph.ref_of(self.recorded), self.tools)


def make_again(
    factory: Factory, recorded: Manifest, ancestors: Mapping[str, Artifact], fresh: Store, tools: Tools
) -> None:
    """Make an artifact again, of what it was made from and in a fresh store; raises the stage's own errors."""
    work, remake = _work(factory, recorded, ancestors, fresh, tools), load_stage(recorded.kind).remake
    if remake is None:
        work.make()
        return
    module, name = remake.split(":")
    function: Callable[[Work], None] = getattr(import_module(module), name)
    function(work)


def _work(original: Factory, recorded: Manifest, ancestors: Mapping[str, Artifact], fresh: Store, tools: Tools) -> Work:
    """The work on an artifact: what it was made from is linked, and the facts of then are taken as given."""
    link_into(fresh, ancestors.values())
    config = rebuilt_config(original.config, recorded, ancestors, fresh.root / "pictures")
    graph = Graph(Factory(config.model_copy(update={"store": fresh.root}), fresh))
    for each in (recorded, *(ancestor.manifest for ancestor in ancestors.values())):
        keys = load_stage(each.kind).fact_keys
        if keys:  # of several versions of an artifact, the nearest is its own
            told = {key: value for key, value in each.configuration.items() if key in keys}
            graph.recorded.setdefault(f"{each.kind}/{name_of(each)}".rstrip("/"), told)
    known = Graph(original)
    if config.pairs == original.config.pairs:
        graph.fact(("source",), lambda: source_in(known))  # the fresh store has too few of its shards to know it
    graph.fact(("moves",), lambda: moves_of(known))
    return Work(recorded, graph, original, tools)


def cut_shard(work: Work) -> None:
    """`shards`: the rows that no other shard holds, next to the shards before it."""
    (source, shard), config = work.name, work.graph.config
    if config.pairs is None or source == INBOX:
        raise NotReproducibleError(
            f"{name_of(work.recorded)}: it lists what lay in the inbox that day, which may be gone or changed since; "
            "reproduce its raw_pairs, which have the images."
        )
    others = work.originals("shards", source)
    work.add([each for each in others if each.manifest.configuration["shard"] < shard])
    later = [each for each in others if each.manifest.configuration["shard"] > shard]
    reader = _RemainingRows(work, later)
    update = {"pairs": reader, "shard_size": work.recorded.summary["rows"]}
    create_new_shards(Factory(config.model_copy(update=update), work.graph.store))


class _RemainingRows:
    """A source without the rows that later shards hold: what was left when a shard was cut.

    Of each content as many rows are passed over as the later shards hold, last ones first: a row that says what another
    said before belongs to the earlier shard.
    """

    locations: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, work: Work, later: Sequence[Artifact]) -> None:
        source = source_in(work.graph)
        assert source is not None
        self._source, self._factory = source, work.graph.factory
        self._moves = source_moves(Factory(work.graph.config, work.original.store), source)
        self._later = later

    def fingerprinted(self) -> dict[str, Any]:
        """The reader's own, as recorded: it is the same source."""
        return dict(self._source.reader)

    def rows(self) -> Iterator[SourceRow]:
        """The rows, in their order."""
        held = Counter(row_digest(row) for shard in self._later for row in shard_rows(shard))
        here = Counter(digest for row in self._rows() if (digest := row_digest(row)) in held)
        seen = Counter[bytes]()
        for row in self._rows():
            digest = row_digest(row)
            seen[digest] += 1
            if seen[digest] <= here[digest] - held[digest] or digest not in held:
                yield row

    def _rows(self) -> Iterator[SourceRow]:
        return rows_as_recorded(self._factory, self._moves)


def ingest(work: Work) -> None:
    """`raw_pairs`: beside those of other shards that were there before, whose pairs it must not repeat."""
    source, shard = work.name
    for pairs in work.originals("raw_pairs", source):
        if _begun(pairs.manifest) < _begun(work.recorded) and pairs.manifest.configuration["shard"] != shard:
            work.add([pairs, *ancestors_of(work.original.store, pairs.manifest)[0].values()])
    work.make()


def caption(work: Work) -> None:
    """`captions`: beside the attempt before it, where failures were redone."""
    retries = work.recorded.configuration.get("retries", 0)
    attempts = work.originals("captions", *work.name) if retries else []
    before = [each for each in attempts if each.manifest.configuration.get("retries", 0) == retries - 1]
    if retries and not before:
        raise NotReproducibleError(f"{work.recorded.address}: the captions whose failures it redid are not there.")
    work.add(before)
    work.make()


def canary(work: Work) -> None:
    """`canaries`: asked with the images of the first shard that the captioner was given."""
    captioner, fingerprint = work.name
    captions = work.originals("captions", captioner, fingerprint)
    for each in sorted(captions, key=lambda each: _begun(each.manifest)):
        pairs = work.original.store.read(each.manifest.inputs[0].address)
        refs = images_of(pairs, moves_of(work.graph)) if pairs is not None else []
        if {ref.image for ref in refs} >= work.recorded.summary["texts"].keys():
            break
    else:
        raise NotReproducibleError(f"{work.recorded.address}: the captions before which it was asked are not there.")
    settings = rebuilt_captioner(work.original.config, captioner, each.manifest.configuration)
    backend = load_backend(settings, work.graph.store)
    try:
        pass_canary(work.graph.store, captioner, fingerprint, backend, refs)
    finally:
        backend.close()


def merge(work: Work) -> None:
    """`training_set`: beside all scores that its filters may look up. What it leaves out is found anew."""
    _merge(work, work.originals("scores"))


def score(work: Work) -> None:
    """`scores`: by merging the training set that had them scored, beside all other parts."""
    scorer = work.recorded.configuration["scorer"]
    users = [each.manifest for each in work.originals("training_set") if _uses(each.manifest, scorer)]
    # The merge that scored them ended after the scores were begun, and the first such is it.
    after = [each for each in users if _ended(each) + _CLOCK >= _started(work.recorded)]
    if not after:
        raise NotReproducibleError(f"{work.recorded.address}: no training set is there for which it was scored.")
    others = [each for each in work.originals("scores") if each.manifest.address != work.recorded.address]
    first = min(after, key=_ended)
    ancestors, _ = ancestors_of(work.original.store, first)
    _merge(_work(work.original, first, ancestors, work.graph.store, work.tools), others)


def _merge(work: Work, scores: Sequence[Artifact]) -> None:
    work.add([each for each in scores if _uses(work.recorded, each.manifest.configuration["scorer"])])
    del work.graph.recorded[f"{work.recorded.kind}/{name_of(work.recorded)}"]
    work.make()


def _uses(training_set: Manifest, scorer: Mapping[str, Any]) -> bool:
    return any(step.get("scorer") == scorer for step in training_set.configuration["filters"])


def resize(work: Work) -> None:
    """`resized_images`: by a trainer of the YAML whose model looks at images of that shape."""
    from caploom.training.objectives import create_objective

    recorded = work.recorded.configuration
    for trainer in work.graph.config.trainers.values():
        decoder = create_objective(trainer, seed=0).decoder
        found = (list(decoder.shape), decoder.preprocessing.interpolation, decoder.preprocessing.resize_mode)
        if found == tuple(recorded[key] for key in ("shape", "interpolation", "resize_mode")):
            resized_images(work.graph, trainer, work.tools.bar)
            return
    raise NotReproducibleError(
        f"{work.recorded.address}: no trainer of the YAML looks at images of the shape {recorded['shape']}."
    )


def _started(manifest: Manifest) -> float:
    """Seconds since the epoch at which an artifact was begun, in whole seconds."""
    return datetime.fromisoformat(manifest.started).timestamp()


def _begun(manifest: Manifest) -> tuple[float, str]:
    """What sorts artifacts by when they were begun: in one second shards are in the order of their names."""
    return _started(manifest), manifest.address


def _ended(manifest: Manifest) -> float:
    """Seconds since the epoch at which it was finished, to the second."""
    return _started(manifest) + manifest.seconds
