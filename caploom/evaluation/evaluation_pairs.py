"""Evaluation sets as tables: images that decode, each with all its captions."""

from caploom.errors import EvaluationError
from caploom.factory import Factory
from caploom.lineage.fingerprints import content_version, fingerprint
from caploom.readers.ingest import validate_rows
from caploom.records import EVALUATION_PAIRS
from caploom.store import Artifact, Draft, Plan
from caploom.tables import count_rows, table_of, write_failures, write_table

KIND = "evaluation_pairs"
CODE_VERSION = "1"


def evaluation_pairs(factory: Factory, name: str) -> Artifact:
    """The evaluation set of that name as `pairs.parquet` (schema EVALUATION_PAIRS), made unless it is made.

    The set's own rows are read each time, since a changed file is another set; images are decoded only for a new one.
    """
    reader = factory.config.evaluation_sets[name]
    rows = list(reader.rows())
    listing = content_version(f"{row.image}\t{row.caption}\t{row.reason}" for row in rows)
    plan = Plan(
        kind=KIND,
        name=(name,),
        code_version=CODE_VERSION,
        configuration={"reader": fingerprint(reader.fingerprinted()), "listing": listing},
    )

    def build(draft: Draft) -> None:
        pairs, failures = validate_rows(rows)
        if not pairs:
            first = failures[0]["detail"] if failures else "the source has no rows."
            raise EvaluationError(f"The evaluation set {name} has no usable pair: {first}")
        images: dict[str, dict[str, object]] = {}
        captions: dict[str, list[str]] = {}
        for pair in pairs:
            images.setdefault(pair["image_id"], {key: pair[key] for key in ("image_id", "image", "path")})
            captions.setdefault(pair["image_id"], []).append(pair["raw_caption"])
        records = [{**image, "captions": captions[image_id]} for image_id, image in images.items()]
        write_table(table_of(records, EVALUATION_PAIRS), draft.folder / "pairs.parquet")
        write_failures(failures, draft.folder)
        draft.rows = count_rows("rows of the source", len(rows), len(pairs), failures)
        draft.data_version = content_version(pair["pair_id"] for pair in pairs)
        draft.summary = {"images": len(images), "captions": len(pairs)}

    return factory.store.make(plan, build)
