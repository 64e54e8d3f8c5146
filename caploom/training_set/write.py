"""Writes the files of a training set from buckets of its captions."""

from contextlib import ExitStack
from pathlib import Path

from caploom.common.progress import Progress
from caploom.storage.store import Artifact
from caploom.training_set.buckets import Buckets
from caploom.training_set.filters import PreparedFilters, apply_filters
from caploom.training_set.mixes import training_rows
from caploom.training_set.row_files import dropped_files, row_files
from caploom.training_set.settings import MixSettings
from caploom.training_set.tally import Tally
from caploom.training_set.training_json import TrainingJson


def training_files(training_set: Artifact) -> list[Path]:
    """The Parquet files of a training set, in their order."""
    names = sorted(name for name in training_set.manifest.files if name.startswith("rows-"))
    return [training_set.file(name) for name in names]


def write_training_set(
    buckets: Buckets,
    filters: PreparedFilters,
    mix: MixSettings,
    folder: Path,
    *,
    json: bool,
    progress: Progress | None = None,
) -> Tally:
    """Write the files of a training set into a folder; raises `TrainingError` when the filters leave nothing."""
    tally, rows_out, dropped_out = Tally(), row_files(folder), dropped_files(folder)
    with ExitStack() as stack:
        json_out = stack.enter_context(TrainingJson(folder / "training.json")) if json else None
        for bucket in buckets:
            kept, dropped = apply_filters(bucket.captions, filters)
            tally.reasons.update(repeated_caption=bucket.repeated, orphan_caption=bucket.orphans)
            dropped_out.write(dropped)
            rows = training_rows(kept, mix)
            tally.count(kept, rows)
            rows_out.write(rows)
            if json_out is not None:
                json_out.write(rows)
            if progress is not None:
                failed = tally.reasons.total() + sum(filters.dropped.values())
                progress(tally.out + failed, buckets.rows_in, failed)
    filters.refuse_if_all_dropped()
    rows_out.close(at_least_one=True)
    dropped_out.close()
    tally.reasons.update(filters.dropped)
    return tally
