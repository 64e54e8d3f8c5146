"""Where an image was retrieved: its rank in both directions in each recipe's newest measurement."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc

from caploom.errors import StoreError
from caploom.questions.trace.context import TraceContext
from caploom.questions.trace.find import evaluation_files
from caploom.questions.trace.records import TracedRank
from caploom.storage.tables import read_table


@dataclass(frozen=True)
class EvaluatedImage:
    """The image in an evaluation set."""

    name: str
    address: str
    image: str
    path: str
    captions: tuple[str, ...]


def evaluated_images(context: TraceContext) -> list[EvaluatedImage]:
    """The newest evaluation sets that contain the image."""
    return [
        EvaluatedImage(address.split("/")[1], address, row["image"], row["path"], tuple(row.get("captions") or ()))
        for address, file in evaluation_files(context.store, context.catalog)
        for row in context.rows_of(file)
    ]


def traced_ranks(context: TraceContext, evaluated: list[EvaluatedImage]) -> list[TracedRank]:
    """The image's ranks in each recipe's newest measurement on these sets."""
    ranks: list[TracedRank] = []
    for each in evaluated:
        made = context.made_from([each.address], "retrieval_metrics", "address, name, is_latest")
        for address, name, is_latest in made:
            if is_latest:
                ranks += _ranks(context, each, address, "/".join(name))
    return ranks


def _ranks(context: TraceContext, image: EvaluatedImage, address: str, recipe: str) -> list[TracedRank]:
    files = context.catalog.execute(
        "select name from files where address = ? and (name like '%/ranks.parquet' or"
        " name like '%/predictions.parquet') order by name",
        [address],
    ).fetchall()
    found: list[TracedRank] = []
    for (file,) in files:
        stage, *_ = PurePosixPath(file).parts
        if PurePosixPath(file).parts[-2] != image.name:
            continue
        if file.endswith("/predictions.parquet"):
            for row in context.rows(address, file):
                words = {"label": row["label"], "predicted": row["predicted"]}
                found.append(TracedRank(recipe, image.name, stage, "cosine", row["rank"], (), address, **words))
            continue
        try:
            table = read_table(context.store.file(address, file))
        except StoreError as error:
            context.notes.append(str(error))
            continue
        rows: list[dict[str, Any]] = table.filter(pc.starts_with(table["query"], context.image_id)).to_pylist()
        for scoring in dict.fromkeys(row["scoring"] for row in rows):
            mine = [row for row in rows if row["scoring"] == scoring]
            as_query = [row["rank"] for row in mine if row["direction"] == "image_to_text"]
            texts = {
                int(row["query"].partition("#")[2]): row["rank"] for row in mine if row["direction"] == "text_to_image"
            }
            captions = tuple(
                (image.captions[number] if number < len(image.captions) else f"caption {number}", rank)
                for number, rank in sorted(texts.items())
            )
            found.append(
                TracedRank(recipe, image.name, stage, scoring, as_query[0] if as_query else None, captions, address)
            )
    return found
