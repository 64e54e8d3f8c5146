"""Ends each row of a batch separately: at a stop string, or when no shear needs more of it."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from caploom.captioning.backend import Generation
from caploom.captioning.stopping import is_settled
from caploom.shearing.settings import ShearStep

_SENTENCE_ENDS = ".!?…。！？\n\ufffd"  # the last: incomplete characters, such as parts of a CJK full stop


def tokens_that_may_settle(
    tokenizer: PreTrainedTokenizerBase, stops: Sequence[Sequence[ShearStep]], stop_strings: Sequence[str]
) -> torch.Tensor | None:
    """Which tokens of the vocabulary can end a sentence or a stop string: bool, shape (vocabulary,); None for no stops.

    Rows are decoded and checked only at such tokens, which keeps the check at every step cheap.
    """
    if not stops and not stop_strings:
        return None
    characters = set(_SENTENCE_ENDS if stops else "") | {text[-1] for text in stop_strings}
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return torch.tensor([any(character in characters for character in piece) for piece in pieces])


class PerRowStopping(StoppingCriteria):  # type: ignore[misc]
    """Watches one batch's generation, and then decodes its texts."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_tokens: Sequence[int],
        stops: Sequence[Sequence[ShearStep]],
        stop_strings: Sequence[str],
        may_settle: torch.Tensor | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = frozenset(end_tokens)
        self._stops = stops
        self._stop_strings = stop_strings
        self._may_settle = may_settle
        # A shear by length is settled by a count and not by a character: rows are checked from that count on.
        counts = [value for steps in stops for step in steps for value in step.parameters.values()]
        self._always_from = min((value for value in counts if isinstance(value, int)), default=None)
        self._prompt_length: int | None = None
        self._rows: list[list[int]] = []
        self._watched: list[bool] = []
        self._ends: list[str | None] = []

    @property
    def watches(self) -> bool:
        """Whether there is any reason to end a row early."""
        return self._may_settle is not None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Which rows are done: bool, shape (batch,)."""
        latest = input_ids[:, -1].tolist()
        if not self._ends:
            self._rows = [[] for _ in latest]
            self._watched = [False] * len(latest)
            self._ends = [None] * len(latest)
        for row, token in enumerate(latest):
            if self._ends[row] is None:
                self._rows[row].append(token)
                self._ends[row] = self._end_of(row, token)
        return torch.tensor([end is not None for end in self._ends], device=input_ids.device)

    def _end_of(self, row: int, token: int) -> str | None:
        if token in self._end_tokens:
            return "stop"
        assert self._may_settle is not None
        self._watched[row] |= token < len(self._may_settle) and bool(self._may_settle[token])
        by_count = self._always_from is not None and len(self._rows[row]) > self._always_from
        if not (self._watched[row] or by_count):
            return None
        text = self._tokenizer.decode(self._rows[row], skip_special_tokens=True)
        if any(stop in text for stop in self._stop_strings):
            return "stop"
        return "shear" if is_settled(text.lstrip(), self._stops) else None

    def read(self, new_tokens: torch.Tensor) -> list[Generation]:
        """The generated texts, from tokens of shape (batch, new), each up to where its row ended."""
        rows, reasons = [], []
        for number, row in enumerate(new_tokens.tolist()):
            end = self._ends[number] if self._ends else None
            if end is not None:
                row = self._rows[number]
            cut = next((position for position, token in enumerate(row) if token in self._end_tokens), None)
            rows.append(row if cut is None else row[:cut])
            reasons.append(end or ("stop" if cut is not None else "length"))
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [
            Generation(self._without_stop_string(text).strip(), len(row), reason)  # type: ignore[arg-type]
            for text, row, reason in zip(texts, rows, reasons, strict=True)
        ]

    def _without_stop_string(self, text: str) -> str:
        return text[: min((text.find(stop) for stop in self._stop_strings if stop in text), default=len(text))]
