"""The sides of the comparison: each shears the captions of one Parquet file and gives a hash of the spans it kept."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.child import Done, Job
from benchmarks.shearing.hf_clip import hf_clip_tokenizer
from caploom.shearing.apply import shear_column, shear_span
from caploom.shearing.rule import Context
from caploom.shearing.sentences import first_sentence
from caploom.shearing.settings import ShearStep
from caploom.shearing.tokens import clip_count, max_tokens

CAPTIONS = "captions.parquet"
ROWS_A_GROUP = 8192
_CORPUS = {"mean": 12}
_WORD = re.compile(r"\S+")
_BATCH = 1024


def column(job: Job) -> Done:
    """Option: steps. The column form; `tame_spans` are those of captions that need no cleaning by CLIP's tokenizer."""
    steps = [ShearStep.model_validate(step) for step in job.options["steps"]]
    blocks = _blocks(job.folder)
    shear_column(pa.array(["Loads &amp; warms the tokenizer. It is slow."]), steps, _context(0, 1))
    kept: list[np.ndarray] = []
    with job.measured():
        for number, texts in enumerate(blocks):
            sheared = shear_column(texts, steps, _context(number * ROWS_A_GROUP, len(texts)))
            kept.append(np.stack([sheared.start, sheared.end], axis=1))
    spans = np.concatenate(kept)
    texts = [text for block in blocks for text in block.to_pylist()]
    return Done(
        len(texts),
        {
            "spans": _digest(spans),
            "tame_spans": _digest(spans[_tame(texts)]),
            "sampled_spans": _digest(spans[:: job.options["every"]]),
        },
    )


def regex_sentence(job: Job) -> Done:
    """A regex that finds full stops and inspects what surrounds each: the scalar rule, caption by caption."""
    blocks = _blocks(job.folder)
    with job.measured():
        spans = [first_sentence(text) for block in blocks for text in block.to_pylist()]
    return Done(len(spans), {"spans": _digest(np.array(spans))})


def seed_split(job: Job) -> Done:
    """The released code's way, which is wrong where a full stop ends no sentence."""
    blocks = _blocks(job.folder)
    with job.measured():
        kept = [text.split(".")[0] for block in blocks for text in block.to_pylist()]
    return Done(len(kept))


def hf_batch(job: Job) -> Done:
    """Option: tokens. Hugging Face's tokenizer of CLIP's vocabulary, in batches; words are cut at by its offsets."""
    tokenizer = hf_clip_tokenizer()
    texts = [text for block in _blocks(job.folder) for text in block.to_pylist()]
    spans = []
    with job.measured():
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            for text, encoding in zip(batch, tokenizer.encode_batch(batch), strict=True):
                spans.append(_cut(text, encoding.offsets, job.options["tokens"]))
    return Done(len(texts), {"tame_spans": _digest(np.array(spans)[_tame(texts)])})


def open_clip_count(job: Job) -> Done:
    """Options: tokens, every. open_clip's tokenizer counts one caption of so many; unmeasured, the spans it allows."""
    texts = [text for block in _blocks(job.folder) for text in block.to_pylist()][:: job.options["every"]]
    clip_count("loads it")
    with job.measured():
        for text in texts:
            clip_count(text)
    spans = [_by_prefixes(text, job.options["tokens"]) for text in texts]
    return Done(len(texts), {"sampled_spans": _digest(np.array(spans))})


def scalar(job: Job) -> Done:
    """Options: shears, every. What the scalar rules keep of one caption of so many, shear after shear."""
    texts = [text for block in _blocks(job.folder) for text in block.to_pylist()]
    every = job.options["every"]
    context = _context(0, len(texts))
    digests = []
    with job.measured():
        for shear in job.options["shears"]:
            steps = [ShearStep.model_validate(step) for step in shear]
            spans = [shear_span(texts[row], steps, context.row(row)) for row in range(0, len(texts), every)]
            digests.append(_digest(np.array(spans)))
    return Done(len(digests) * len(range(0, len(texts), every)), {"spans": digests})


def _blocks(folder: Path) -> list[pa.Array]:
    file = pq.ParquetFile(folder / CAPTIONS)
    return [file.read_row_group(number).column("text").combine_chunks() for number in range(file.num_row_groups)]


def _context(first: int, count: int) -> Context:
    numbers = range(first, first + count)
    return Context([str(number) for number in numbers], "captioner", np.array([n % 17 for n in numbers]), _CORPUS)


def _cut(text: str, offsets: Sequence[tuple[int, int]], tokens: int) -> tuple[int, int]:
    """The words of the first `tokens` tokens."""
    words = [match.span() for match in _WORD.finditer(text)]
    if len(offsets) > tokens:
        beyond = offsets[tokens][0]
        words = [word for number, word in enumerate(words) if word[1] <= beyond or number == 0]
    return words[0][0], words[-1][1]


def _by_prefixes(text: str, tokens: int) -> tuple[int, int]:
    """The longest beginning of whole words that the tokenizer, given all of it, counts as at most `tokens`."""
    ends = [match.end() for match in _WORD.finditer(text)]
    kept, _ = max_tokens(text, tokens)
    fitting = [end for end in ends[: tokens + 10] if clip_count(text[kept:end]) <= tokens]
    return kept, max([ends[0], *fitting])


def _tame(texts: Sequence[str]) -> np.ndarray:
    return np.array([text.isascii() and "&" not in text for text in texts])


def _digest(spans: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(spans, np.int64).tobytes()).hexdigest()
