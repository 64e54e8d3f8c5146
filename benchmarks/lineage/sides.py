"""The cases: each question as a person asks it, in a process of its own, and the same answers without the catalog."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.cases import BenchmarkError
from benchmarks.child import Done, Job
from benchmarks.lineage.inputs import Inputs
from caploom.training_set.samples import Samples

STANDINGS = ("status", "results")
"""Questions about the whole factory, each its own command, whose text is their answer."""


def ask(job: Job) -> Done:
    """A question, measured from the start of its process to its end; with `json`, what it answers."""
    question, as_json = job.options["question"], job.options.get("json")
    arguments = [*arguments_of(_folder(job), question), *(["--json"] if as_json else [])]
    with job.measured():
        text = _caploom(arguments)
    if not text:
        raise BenchmarkError(f"caploom {' '.join(arguments)} printed nothing.")
    if question in STANDINGS:
        return Done(1, standing_of(text))
    return Done(1, answer_of(question, json.loads(text)) if as_json else {})


def first_refresh(job: Job) -> Done:
    """The catalog made anew from all manifests, while the one that is there stays aside."""
    folder = _folder(job)
    (folder / "store" / "catalog.duckdb").unlink(missing_ok=True)
    with job.measured():
        _caploom(["sql", str(folder / "factory.yaml"), "select count(*) from manifests"])
    return Done(sum(1 for _ in _manifests(folder)))


def scan(job: Job) -> Done:
    """What a question must answer, from a scan of all files."""
    folder = _folder(job)
    with job.measured():
        result = ORACLES[job.options["question"].split("-")[0]](folder, job.options["question"])
    return Done(1, result)


def arguments_of(folder: Path, question: str) -> list[str]:
    """The command line of a question."""
    inputs = Inputs.read(folder)
    config = str(inputs.config)
    return {
        "lineage-back": ["lineage", config, "ablation_report"],
        "lineage-forward": ["lineage", config, f"raw_pairs [{inputs.shard}]"],
        "why": ["why", config, "filtered", "r1_i2t"],
        "trace": ["trace", config, inputs.images[0]],
        "trace-path": ["trace", config, inputs.path],
        "trace-evaluated": ["trace", config, inputs.evaluated],
        **{standing: [standing, config] for standing in STANDINGS},
    }[question]


def standing_of(text: str) -> dict[str, Any]:
    """What the scan must find too of the text of `caploom status` or `caploom results`: its verdict, or its recalls."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    recalls = {recipe: figures[:6] for recipe, seeds, *figures in rows if seeds.isdigit()}
    return {"recalls": recalls} if recalls else {"status": text.strip()}


def answer_of(question: str, answer: dict[str, Any]) -> dict[str, Any]:
    """Of an answer, what the scan must find too."""
    if question.startswith("lineage"):
        edges = sorted([edge["source"], edge["made"]] for edge in answer["edges"])
        return {"nodes": sorted(node["address"] for node in answer["nodes"]), "edges": edges}
    if question == "why":
        sources = answer["training_set"]["sources"]
        return {
            "value": answer["figures"][0]["value"],
            "samples": {each["source"]: round(each["samples_share"], 4) for each in sources},
            "lacking": {each["source"]: each["images_lacking"] for each in sources},
        }
    return {
        "raw": sorted(each["caption"] for each in answer["pairs"]),
        "captions": sorted([each["captioner"], each["text"]] for each in answer["captions"]),
        "kept": sorted(shear["kept"] for each in answer["captions"] for shear in each["sheared"]),
        "landed": sorted(
            [training_set["name"], row["source"], row["caption"], row["weight"] and round(row["weight"], 4)]
            for training_set in answer["training_sets"]
            for row in training_set["captions"]
        ),
        "failures": sorted(each["reason"] for each in answer["failures"]),
        "ranks": sorted(
            [each["recipe"], each["image_to_text"], sorted(rank for _, rank in each["text_to_image"])]
            for each in answer["ranks"]
        ),
    }


def _lineage(folder: Path, question: str) -> dict[str, Any]:
    """The graph by following the manifests' inputs, one after the other."""
    inputs = {each["address"]: [one["address"] for one in each["inputs"]] for each in _manifests(folder)}
    made: dict[str, list[str]] = {}
    for address, sources in inputs.items():
        for source in sources:
            made.setdefault(source, []).append(address)
    name = arguments_of(folder, question)[2]
    kind, _, shard = name.partition(" ")
    (root,) = [each for each in inputs if each.startswith(f"{kind}/") and (not shard or f"/{shard[1:-1]}/" in each)]
    back, forward = _reached(root, inputs), _reached(root, made)
    edges = [[source, each] for each in [root, *back] for source in inputs[each]]
    edges += [[each, product] for each in [root, *forward] for product in made.get(each, [])]
    return {"nodes": sorted({root, *back, *forward}), "edges": sorted(edges)}


def _reached(root: str, following: dict[str, list[str]]) -> set[str]:
    reached: set[str] = set()
    waiting = [root]
    while waiting:
        for each in following.get(waiting.pop(), []):
            if each not in reached:
                reached.add(each)
                waiting.append(each)
    return reached


def _why(folder: Path, question: str) -> dict[str, Any]:
    """The shares by adding up every row's weights, and Recall@1 by counting ranks."""
    import pyarrow.parquet as pq

    samples = Samples()
    for file in sorted(folder.glob("store/training_set/filtered/*/rows-*.parquet")):
        samples.add(pq.read_table(file, columns=["image_id", "sources", "weights"]))
    (ranks,) = folder.glob("store/retrieval_metrics/filtered/*/zero-shot/held-out/ranks.parquet")
    row = duckdb.execute(
        f"select avg((rank <= 1)::int) from read_parquet('{ranks}') where direction = 'image_to_text'"
    ).fetchone()
    images = sum(1 for _ in _pairs_of(folder))
    return {
        "value": row[0] if row else None,
        "samples": {name: round(share, 4) for name, share in samples.shares(list(samples.drawn)).items()},
        "lacking": {name: images - count for name, count in samples.images.items()},
    }


def _pairs_of(folder: Path) -> Iterator[str]:
    rows = duckdb.execute(f"select distinct image_id from read_parquet('{folder}/store/raw_pairs/*/*/*/pairs.parquet')")
    yield from (image_id for (image_id,) in rows.fetchall())


def _status(folder: Path, question: str) -> dict[str, Any]:
    """That every input of every artifact is in the store, in the version that it was made from."""
    manifests = {each["address"]: each for each in _manifests(folder)}
    inputs = [one for each in manifests.values() for one in each["inputs"]]
    current = all(manifests[each["address"]]["data_version"] == each["data_version"] for each in inputs)
    return {"status": "Everything is current." if current else "Something was made from another version."}


def _results(folder: Path, question: str) -> dict[str, Any]:
    """Recall@1, 5 and 10 of both directions of every recipe, by counting ranks."""
    files = f"{folder}/store/retrieval_metrics/*/*/zero-shot/*/ranks.parquet"
    query = f"""
        select split_part(filename, '/', -5), direction, avg((rank <= 1)::int), avg((rank <= 5)::int),
               avg((rank <= 10)::int)
        from read_parquet('{files}', filename = true) group by all order by all
    """  # the direction from images to texts is the first of the two
    recalls: dict[str, list[str]] = {}
    for recipe, _, *shares in duckdb.execute(query).fetchall():
        recalls.setdefault(recipe, []).extend(f"{100 * share:.1f}" for share in shares)
    return {"recalls": recalls}


def _trace(folder: Path, question: str) -> dict[str, Any]:
    """Every table of the store scanned for the image."""
    inputs = Inputs.read(folder)
    image = inputs.evaluated if question == "trace-evaluated" else inputs.images[0]
    store = folder / "store"

    def rows(files: str, columns: str, where: str = "image_id = $image") -> list[list[Any]]:
        if not any(store.glob(files)):
            return []
        query = f"select {columns} from read_parquet('{store}/{files}', filename = true) where {where}"
        return [list(row) for row in duckdb.execute(query, {"image": image}).fetchall()]

    landed = []
    name = f"split_part(filename[{len(str(store)) + 2}:], '/', 2)"
    for each in ("four-captioners", "filtered"):
        drawn = rows(f"training_set/{each}/*/rows-*.parquet", "sources, captions, weights")
        for sources, captions, weights in drawn:
            landed += [
                [each, source, caption, round(weight, 4)]
                for source, caption, weight in zip(sources, captions, weights, strict=True)
            ]
        landed += [[each, *row, None] for row in rows(f"training_set/{each}/*/dropped-*.parquet", "source, caption")]
    ranks: dict[str, list[Any]] = {}
    held_out = rows(
        "retrieval_metrics/*/*/zero-shot/held-out/ranks.parquet",
        f"{name}, direction, rank",
        "starts_with(query, $image)",
    )
    for recipe, direction, rank in held_out:
        mine = ranks.setdefault(recipe, [recipe, None, []])
        if direction == "image_to_text":
            mine[1] = rank
        else:
            mine[2].append(rank)
    failures = rows("captions/*/*/*/*/failures.parquet", "reason", "key = $image")
    return {
        "raw": sorted(row[0] for row in rows("raw_pairs/*/*/*/pairs.parquet", "raw_caption")),
        "captions": sorted(rows("captions/*/*/*/*/captions.parquet", "captioner, text")),
        "kept": sorted(row[0] for row in rows("sheared/*/*/*/*/sheared.parquet", "caption")),
        "landed": sorted(landed),
        "failures": sorted(row[0] for row in failures),
        "ranks": sorted([recipe, found, sorted(each)] for recipe, found, each in ranks.values()),
    }


ORACLES = {"lineage": _lineage, "why": _why, "trace": _trace, "status": _status, "results": _results}
"""By the beginning of a question, the function that answers it from a scan of all files."""


def _folder(job: Job) -> Path:
    return Path(job.options["folder"]) if job.options.get("folder") else job.folder


def _manifests(folder: Path) -> Iterator[dict[str, Any]]:
    for path in (folder / "store").rglob("manifest.json"):
        yield json.loads(path.read_text(encoding="utf-8"))


def _caploom(arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "caploom.cli", *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode:
        raise BenchmarkError(f"caploom {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
