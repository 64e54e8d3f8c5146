"""`shearing`: every rule over a column, on one thread, beside a regex and the tokenizers that others count with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.captions import caption_column
from benchmarks.cases import Case, Outcome, Skipped, Verdict
from benchmarks.shearing.sides import CAPTIONS, ROWS_A_GROUP

_STEPS: dict[str, list[Any]] = {
    "first_sentence": ["first_sentence"],
    "max_tokens": [{"max_tokens": 30}],
    "max_words": [{"max_words": 20}],
    "match_raw": ["match_raw"],
    "match_corpus": ["match_corpus"],
    "strip_boilerplate": ["strip_boilerplate"],
    "drop_repeats": ["drop_repeats"],
    "sentences": [{"sentences": 2}],
    "random_sentence": ["random_sentence"],
    "seed_release": ["paper_release"],
    "whole_shear": ["strip_boilerplate", "first_sentence", {"max_tokens": 30, "tokenizer": "clip"}],
}
_SLOW = 10  # open_clip's tokenizer is given one caption of so many


class Shearing:
    """Sizes are captions of 10 to 60 words (`captions.py`)."""

    size = 200_000
    quick_size = 10_000
    tiny_size = 500
    packages = ("numpy", "pyarrow", "open_clip_torch", "tokenizers")

    def prepare(self, folder: Path, size: int) -> None:
        """The captions as Parquet, in groups of rows as a shard has them."""
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(folder / CAPTIONS, schema) as writer:
            for block in caption_column(size, block=ROWS_A_GROUP):
                writer.write_table(pa.table([block], schema))

    def cases(self, size: int) -> Sequence[Case | Skipped]:
        """See `sides`."""
        return [
            *(_case(f"caploom.{name}", "column", {"steps": steps}) for name, steps in _STEPS.items()),
            _case("regex.first_sentence", "regex_sentence", {}),
            _case("seed.split", "seed_split", {}),
            _case("hf_batch.max_tokens", "hf_batch", {"tokens": 30}),
            _case("open_clip.count", "open_clip_count", {"tokens": 30, "every": _SLOW}),
            _case("caploom.scalar", "scalar", {"every": _SLOW, "shears": list(_STEPS.values())}),
        ]

    def conclude(self, outcomes: Mapping[str, Outcome]) -> Verdict:
        """Captions a CPU second over the peers', every rule's own rate, and whether the spans are the same."""
        first, tokens = outcomes["caploom.first_sentence"], outcomes["caploom.max_tokens"]
        hf, regex = outcomes["hf_batch.max_tokens"], outcomes["regex.first_sentence"]
        open_clip = outcomes["open_clip.count"]
        rates = {f"{name}_per_cpu_s": _rate(outcomes[f"caploom.{name}"]) for name in _STEPS}
        return Verdict(
            ratios={
                "first_sentence_vs_regex": _rate(first) / _rate(regex),
                "first_sentence_vs_seed_split": _rate(first) / _rate(outcomes["seed.split"]),
                "max_tokens_vs_hf_batch": _rate(tokens) / _rate(hf),
                "max_tokens_vs_open_clip": _rate(tokens) / _rate(open_clip),
                **rates,
            },
            equal={
                "first_sentence_vs_oracle": _same(first, regex, "spans"),
                "max_tokens_vs_hf_batch": _same(tokens, hf, "tame_spans"),
                "max_tokens_vs_open_clip": _same(tokens, open_clip, "sampled_spans"),
                **{
                    f"{name}_vs_scalar": all(
                        run["spans"][number] == ours["sampled_spans"]
                        for run in outcomes["caploom.scalar"].results
                        for ours in outcomes[f"caploom.{name}"].results
                    )
                    for number, name in enumerate(_STEPS)
                },
            },
        )


def _case(name: str, function: str, options: dict[str, Any]) -> Case:
    return Case(name, "captions", f"benchmarks.shearing.sides:{function}", {"every": _SLOW, **options})


def _rate(outcome: Outcome) -> float:
    """Captions a second of CPU time."""
    return outcome.rate * outcome.wall_s / max(outcome.cpu_s, 1e-9)


def _same(ours: Outcome, peer: Outcome, what: str) -> bool:
    """Whether every run of both sides kept the same of every caption."""
    return all(run[what] == ours.results[0][what] for run in [*ours.results, *peer.results])
