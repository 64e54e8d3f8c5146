"""The canary's gate: no shard is captioned before a captioner has shown that its batches are right."""

from collections.abc import Sequence

from caploom.captioning.backend import Backend, CanaryRow, ImageRef
from caploom.errors import CanaryError
from caploom.stages.graph import Graph
from caploom.stages.stage import Stage
from caploom.storage.store import Artifact, Draft, Plan, Store, package_versions
from caploom.storage.tables import count_rows

KIND = "canaries"
CODE_VERSION = "1"
_DECIDING_PACKAGES = ("torch", "transformers")


def canary_plan(captioner: str, fingerprint: str) -> Plan:
    """The plan of a captioner's canary; another version of what runs the model is asked again."""
    versions = {name: version for name, version in package_versions().items() if name in _DECIDING_PACKAGES}
    return Plan(
        kind=KIND,
        name=(captioner, fingerprint),
        code_version=CODE_VERSION,
        configuration={"captioner": captioner, "captioner_fingerprint": fingerprint, "packages": versions},
    )


def pass_canary(
    store: Store, captioner: str, fingerprint: str, backend: Backend, refs: Sequence[ImageRef]
) -> Artifact | None:
    """Have a captioner caption a few images in a batch and alone, unless it has passed before.

    Raises `CanaryError` when the texts differ. None where nothing is batched, or no image could be read.
    """
    plan = canary_plan(captioner, fingerprint)
    found = store.find(plan)
    if found is not None:
        return found
    rows = backend.canary(refs)
    if not rows:
        return None
    wrong = [row for row in rows if not row.equal]
    if wrong:
        raise CanaryError(
            f"captions/{captioner}: {len(wrong)} of {len(rows)} images get another caption in a batch than alone "
            f"({_quoted(wrong[0])}), so its batches cannot be trusted; set batch_size: 1, or report this family."
        )

    def build(draft: Draft) -> None:
        draft.device = backend.device
        draft.rows = count_rows("images", len(rows), len(rows), [])
        draft.summary = {"images": len(rows), "texts": {row.image: row.single for row in rows}}

    return store.make(plan, build)


def _quoted(row: CanaryRow) -> str:
    return f'{row.image}: "{row.batched[:80]}" in a batch, "{row.single[:80]}" alone'


def canary_of(graph: Graph, captioner: str, fingerprint: str) -> Artifact | None:
    """A captioner's canary, if it passed one."""
    return graph.view.find(canary_plan(captioner, fingerprint))


CANARIES = Stage(
    kind=KIND,
    code_version=CODE_VERSION,
    axes=("captioner",),
    keys=lambda graph: [(name,) for name in graph.config.captioners],
    name=lambda graph, key: (key[0], graph.fingerprint(key[0])),
    name_parts=("captioner", "#fingerprint"),
    look=lambda graph, key: canary_of(graph, key[0], graph.fingerprint(key[0])),
    hidden=True,
    cost=None,
    unit="images",
    reads_images=True,
    remake="caploom.reproduce.remake:canary",
)
