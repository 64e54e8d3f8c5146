"""What is different now: in what a stage would make, in its files once they are rebuilt, and in any two values.

Bytes are compared with the hashes that the manifest recorded, and so with what was made then, even where a file was
changed since. What differs in them is looked up in the files themselves.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caploom.common.hashing import file_sha256
from caploom.common.text import quoted
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, Plan
from caploom.storage.tables import read_table

MEASURED_COLUMNS = {"captions.parquet": frozenset({"seconds"})}
"""Columns that say how long something took: no second run takes as long."""

_ABSENT = object()
_SHOWN = 5  # differences of a plan

Sameness = Literal["identical", "measured", "different", "not made", "new"]


@dataclass(frozen=True)
class FileComparison:
    """One file of an artifact.

    `sameness`: `identical` bytes; `measured`: other bytes, of measured times alone; `different`; `not made` again; or
    `new`, made now and not then. `detail` says what differs, and is empty for identical files.
    """

    name: str
    sameness: Sameness
    detail: str = ""


def compare_files(original: Artifact, made: Artifact) -> list[FileComparison]:
    """Every file of either artifact, in the order of their names."""
    then, now = original.manifest.files, made.manifest.files
    compared = []
    for name in sorted({*then, *now}):
        if name not in now:
            compared.append(FileComparison(name, "not made", "this file was not rebuilt"))
        elif name not in then:
            compared.append(FileComparison(name, "new", "this file was not made then"))
        elif then[name].sha256 == now[name].sha256:
            compared.append(FileComparison(name, "identical"))
        else:
            compared.append(_differing(name, original.folder / name, made.folder / name, then[name].sha256))
    return compared


def changed_since(artifact: Artifact) -> list[str]:
    """Sentences on those files of an artifact that are gone or no longer what its manifest says."""
    found = []
    for name, record in artifact.manifest.files.items():
        path = artifact.folder / name
        if not path.is_file():
            found.append(f"{artifact.manifest.address}: its file {name} is gone.")
        elif path.stat().st_size != record.size or file_sha256(path) != record.sha256:
            found.append(f"{artifact.manifest.address}: its file {name} was changed after it was made.")
    return found


def _differing(name: str, then: Path, now: Path, recorded: str) -> FileComparison:
    if not then.is_file() or file_sha256(then) != recorded:
        return FileComparison(name, "different", "other bytes; what was made then is no longer there to compare with")
    if name.endswith(".parquet"):
        return _tables(name, then, now)
    if name.endswith(".json"):
        changed = list(changed_values(*(json.loads(path.read_text(encoding="utf-8")) for path in (then, now))))
        detail = _values(changed) if changed else "the same values, written otherwise"
    elif name.endswith(".safetensors"):
        detail = _tensors(then, now)
    elif name.endswith((".md", ".html", ".txt", ".csv", ".jsonl")):
        detail = _lines(then, now)
    else:
        detail = f"{then.stat().st_size:,} bytes then, {now.stat().st_size:,} now, and not the same"
    return FileComparison(name, "different", detail)


def _tables(name: str, then: Path, now: Path) -> FileComparison:
    before, after = read_table(then), read_table(now)
    measured = MEASURED_COLUMNS.get(name, frozenset())
    columns = [column for column in before.column_names if column in after.column_names]
    if before.schema != after.schema:
        detail = f"other columns: {', '.join(before.column_names)} then, {', '.join(after.column_names)} now"
        return FileComparison(name, "different", detail if before.column_names != after.column_names else "other types")
    if len(before) != len(after):
        detail = f"{len(before):,} rows then, {len(after):,} now"
        example = next(_unmatched(before, after, [each for each in columns if each not in measured]), None)
        return FileComparison(name, "different", f"{detail}; for example {example}" if example else detail)
    rows = {column: _rows_that_differ(before.column(column), after.column(column)) for column in columns}
    changed = {column: places for column, places in rows.items() if places}
    if not changed:
        versions = {pq.read_metadata(path).created_by for path in (then, now)}
        detail = f"the same {len(before):,} rows, written by {' and by '.join(sorted(map(str, versions)))}"
        return FileComparison(name, "different", detail)
    if changed.keys() <= measured:
        detail = f"the same {len(before):,} rows but for how long each took ({', '.join(sorted(changed))})"
        return FileComparison(name, "measured", detail)
    column, places = next((column, places) for column, places in changed.items() if column not in measured)
    count = len({place for each, found in changed.items() if each not in measured for place in found})
    row = min(places)
    values = (quoted(table.column(column)[row].as_py()) for table in (before, after))
    detail = f"{count:,} of {len(before):,} rows differ; for example {column} of row {row}: " + " then, ".join(values)
    return FileComparison(name, "different", f"{detail} now")


def _rows_that_differ(before: pa.ChunkedArray, after: pa.ChunkedArray) -> list[int]:
    if before.equals(after):
        return []
    one, other = before.combine_chunks(), after.combine_chunks()
    if pa.types.is_nested(one.type):
        return [row for row, (a, b) in enumerate(zip(one.to_pylist(), other.to_pylist(), strict=True)) if a != b]
    same = pc.if_else(pc.is_null(one), pc.is_null(other), pc.fill_null(pc.equal(one, other), False))
    if pa.types.is_floating(one.type):
        same = pc.or_(same, pc.and_(pc.fill_null(pc.is_nan(one), False), pc.fill_null(pc.is_nan(other), False)))
    return [int(row) for row in pc.indices_nonzero(pc.invert(same)).to_pylist()]


def _unmatched(before: pa.Table, after: pa.Table, columns: list[str]) -> Iterator[str]:
    """The first row at which tables of different lengths part."""
    rows = zip_longest(before.select(columns).to_pylist(), after.select(columns).to_pylist())
    for number, (one, other) in enumerate(rows):
        if one != other:
            yield f"row {number}: {quoted(one)} then, {quoted(other)} now"


def _values(changed: list[tuple[str, str, str]]) -> str:
    key, before, after = changed[0]
    count = "1 value differs" if len(changed) == 1 else f"{len(changed):,} values differ"
    return f"{count}; for example {key}: {before} then, {after} now"


def _tensors(then: Path, now: Path) -> str:
    from safetensors import safe_open

    with safe_open(then, "pt") as one, safe_open(now, "pt") as other:
        names = set(one.keys())
        if names != set(other.keys()):
            return "other weights, by their names"
        gaps = {}
        for name in sorted(names):
            before, after = one.get_tensor(name), other.get_tensor(name)
            if before.shape != after.shape:
                return f"the weights {name} have another shape"
            if not bool((before == after).all()):
                gaps[name] = float((before.double() - after.double()).abs().max())
    if not gaps:
        return "the same weights, written otherwise"
    largest = max(gaps, key=lambda name: gaps[name])
    return f"{len(gaps):,} of {len(names):,} weights differ, by up to {gaps[largest]:.3g} ({largest})"


def _lines(then: Path, now: Path) -> str:
    texts: list[list[Any]] = [path.read_text(encoding="utf-8").splitlines() for path in (then, now)]
    pairs = list(zip_longest(*texts, fillvalue=""))
    places = [number for number, (one, other) in enumerate(pairs) if one != other]
    if not places:
        return "the same lines, ended otherwise"
    one, other = pairs[places[0]]
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(start - 20, 0)
    shown = f"{quoted(one[start:])} then, {quoted(other[start:])} now"
    return f"{len(places):,} of {len(pairs):,} lines differ; for example line {places[0] + 1}: {shown}"


def plan_differences(plan: Plan, recorded: Manifest) -> list[str]:
    """A sentence for each difference; none when the plan's fingerprint is the recorded one."""
    if plan.fingerprint == recorded.fingerprint:
        return []
    found = []
    if plan.code_version != recorded.code_version:
        found.append(
            f"The stage's code has changed its results since: code version {recorded.code_version} then, "
            f"{plan.code_version} now."
        )
    settings = list(changed_values(recorded.configuration, _as_recorded(plan)))
    found += [f"The configuration's {key} was {then}, and is {now} now." for key, then, now in settings[:_SHOWN]]
    if len(settings) > _SHOWN:
        found.append(f"{len(settings) - _SHOWN} further values of the configuration differ.")
    then = {record.address: record.data_version for record in recorded.inputs}
    now = {record.address: record.data_version for record in plan.inputs}
    found += [f"It was made from {address}, and would not be now." for address in then if address not in now][:_SHOWN]
    found += [f"It would be made from {address}, and was not then." for address in now if address not in then][:_SHOWN]
    found += [
        f"The input {address} had the content {version}, and has {now[address]} now."
        for address, version in then.items()
        if now.get(address, version) != version
    ][:_SHOWN]
    if not found and list(then) != list(now):
        found.append("Its inputs stand in another order.")
    return found


def only_code_differs(plan: Plan, recorded: Manifest) -> bool:
    """Whether a plan says the same as the manifest, but for the code version at most."""
    return _as_recorded(plan) == recorded.configuration and list(plan.inputs) == recorded.inputs


def changed_values(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """The places in which two JSON values differ: key's path, and both values, shortened and safe to print."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            place = f"{key}.{name}" if key else str(name)
            yield from changed_values(before.get(name, _ABSENT), after.get(name, _ABSENT), place)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from changed_values(one, other, f"{key}[{number}]")
    elif type(before) is not type(after) or before != after:
        then, now = ("absent" if value is _ABSENT else quoted(value) for value in (before, after))
        yield key or "value", then, now


def _as_recorded(plan: Plan) -> Any:
    return json.loads(json.dumps(plan.configuration))
