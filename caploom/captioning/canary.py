"""The canary: before a captioner's first shard, a batch must give the same texts as its images alone.

Wrong padding makes batched texts wrong, silently and fluently. Both sides are greedy. Where they differ, the single run
must have been undecided at that token within the noise of the dtype; otherwise the batch is wrong.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import torch

from caploom.captioning.backend import CanaryRow, ImageRef
from caploom.images.decode import ImageFault

if TYPE_CHECKING:
    from PIL.Image import Image


IMAGES = 8
_CANDIDATES = 64
_NOISE = 4  # in units of the model's precision at the largest score: the effect of another order of summation


class CanaryModel(Protocol):
    """The interface of a model for the canary."""

    @property
    def end_tokens(self) -> Sequence[int]:
        """Tokens that end a text."""
        ...

    @property
    def precision(self) -> float:
        """The step between 1 and the next number of the model's dtype."""
        ...

    def length(self, ref: ImageRef) -> float:
        """The length of an image's prompt."""
        ...

    def prepare(self, images: "Sequence[Image]", refs: Sequence[ImageRef]) -> Any:
        """The inputs of a batch."""
        ...

    def greedy(self, prepared: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """New tokens, shape (batch, new), and each step's scores, shapes (batch, vocabulary), without any stop."""
        ...

    def text(self, tokens: torch.Tensor) -> str:
        """The text of new tokens, shape (new,)."""
        ...


def compare_batched_with_single(model: CanaryModel, refs: Sequence[ImageRef]) -> list[CanaryRow]:
    """Greedy texts of up to eight readable images, batched and alone, with prompts as different as possible."""
    opened = _spread(model, refs)
    if not opened:
        return []
    images, chosen = [image for _, image in opened], [ref for ref, _ in opened]
    batched, _ = model.greedy(model.prepare(images, chosen))
    rows = []
    for image, ref, in_batch in zip(images, chosen, batched, strict=True):
        alone, scores = model.greedy(model.prepare([image], [ref]))
        texts = [model.text(_until_end(tokens, model.end_tokens)) for tokens in (in_batch, alone[0])]
        equal = texts[0] == texts[1] or _within_noise(model, in_batch, alone[0], scores)
        rows.append(CanaryRow(ref.image, texts[0], texts[1], equal))
    return rows


def _spread(model: CanaryModel, refs: Sequence[ImageRef]) -> "list[tuple[ImageRef, Image]]":
    """Eight of the first images, from the shortest to the longest prompt: only different lengths need padding."""
    ordered = sorted(refs[:_CANDIDATES], key=model.length)
    step = max(len(ordered) // IMAGES, 1)
    preferred = ordered[::step] + [ref for position, ref in enumerate(ordered) if position % step]
    opened = []
    for ref in preferred:
        with suppress(ImageFault):  # captioning the shard reports it
            opened.append((ref, ref.opened()))
        if len(opened) == IMAGES:
            break
    return opened


def _until_end(tokens: torch.Tensor, end_tokens: Sequence[int]) -> torch.Tensor:
    ends = torch.isin(tokens, torch.tensor(list(end_tokens), device=tokens.device)).nonzero()
    return tokens[: int(ends[0])] if len(ends) else tokens


def _within_noise(
    model: CanaryModel, batched: torch.Tensor, single: torch.Tensor, scores: Sequence[torch.Tensor]
) -> bool:
    length = min(len(batched), len(single), len(scores))
    differ = (batched[:length] != single[:length]).nonzero()
    if not len(differ):
        return True  # only the padding after the end differs
    step = int(differ[0])
    alone = scores[step][0].float()
    gap = alone[single[step]] - alone[batched[step]]
    noise = _NOISE * model.precision * alone[alone.isfinite()].abs().max()
    return bool(gap <= noise)
