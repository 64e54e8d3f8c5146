"""Pretrains a captioner's vision encoder to locate things, before the captioner learns to write texts.

The large captioners start from pretrained vision encoders (a CLIP ViT, a Q-Former, a resampler). From scratch, a tiny
Q-Former that learns from captions alone still confuses most things after a thousand steps, because its queries never
attend to different parts of the picture. So the vector of each cell of a 4 x 4 grid first learns to encode which thing
is there, in which place, and which cell it is; then each query of a Q-Former or resampler starts out attending to one
cell, and stays with it. The classifiers for this are discarded afterwards.

This module imports torch: import it only where captioners are trained.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from caploom.demo.scenes import Scene
from caploom.demo.world import BACKGROUNDS, SCENE_SIZE, THINGS

GRID = 4
_CELL = SCENE_SIZE // GRID
_COVERED = 0.3
_NOTHING = len(THINGS)
_THING_NUMBER = {thing.name: number for number, thing in enumerate(THINGS)}
_PLACE_NUMBER = {background.name: number for number, background in enumerate(BACKGROUNDS)}
_QUESTIONS = [_NOTHING + 1, _NOTHING + 1, len(BACKGROUNDS), GRID * GRID]
"""Number of answers: what covers the cell, what has its centre in it, which place, which cell."""
_REPORT_EVERY = 25
# A query that attends to one of 16 cells by this margin gives it nearly all its attention.
_MARGIN = 7.0

CellVectors = Callable[[PreTrainedModel, dict[str, Tensor]], Tensor]


@dataclass(frozen=True)
class _VisionEncoder:
    """Access to a family's vision encoder.

    Attributes:
        cells: returns the vectors of the picture's cells, (pictures, 16, width).
        start_queries: makes each query attend to one cell, given the weights (16, width) that recognise the cells, and
            freezes this attention: a few steps of text training would destroy it for good.
    """

    cells: CellVectors
    start_queries: Callable[[PreTrainedModel, Tensor], None] | None = None


def _llava(model: PreTrainedModel, images: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(model.model.get_image_features(images["pixel_values"]).pooler_output))


def _qwen_vl(model: PreTrainedModel, images: dict[str, Tensor]) -> Tensor:
    grid = images["image_grid_thw"]
    seen: Tensor = model.model.visual(images["pixel_values"], grid_thw=grid).pooler_output
    return seen.view(len(grid), GRID**2, -1)


def _minigpt_4(model: PreTrainedModel, images: dict[str, Tensor]) -> Tensor:
    seen: Tensor = model.vision_model(images["pixel_values"]).last_hidden_state
    return seen[:, 1:]


def _otter(model: PreTrainedModel, images: dict[str, Tensor]) -> Tensor:
    seen = model.model.vision_model(images["pixel_values"].flatten(0, 1)).last_hidden_state[:, 1:]
    attention, _ = model.model.perceiver_resampler.blocks[0]
    normal: Tensor = attention.context_layer_norm(seen)
    return normal


def _start_minigpt_4(model: PreTrainedModel, cells: Tensor) -> None:
    first = model.qformer.encoder.layer[0]
    cross = first.crossattention
    attention = cross.attention
    model.vision_model.requires_grad_(False)
    first.attention.requires_grad_(False)
    _attend_to_cells(
        model.query_tokens,
        cells,
        attention.query,
        attention.key,
        attention.value,
        cross.output.dense,
        attention.num_attention_heads,
    )


def _start_otter(model: PreTrainedModel, cells: Tensor) -> None:
    resampler = model.model.perceiver_resampler
    attention, _ = resampler.blocks[0]
    model.model.vision_model.requires_grad_(False)
    attention.context_layer_norm.requires_grad_(False)
    attention.latents_layer_norm.requires_grad_(False)
    _attend_to_cells(
        resampler.latents,
        cells,
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.output_proj,
        attention.n_heads,
    )


@torch.no_grad()
def _attend_to_cells(
    queries: Tensor, cells: Tensor, query: nn.Linear, key: nn.Linear, value: nn.Linear, output: nn.Linear, heads: int
) -> None:
    """Let query i attend to what the weights ``cells[i]`` recognise, and pass its content on unchanged."""
    count, width = cells.shape
    head = width // heads
    # Where queries are keys too, as in a resampler, they must not resemble a cell.
    queries.normal_()
    queries -= queries @ torch.linalg.pinv(cells) @ cells
    normal = nn.functional.layer_norm(queries, (width,)).view(count, width)
    ask = torch.linalg.pinv(normal) * math.sqrt(head)
    for layer in (query, key, value, output):
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for start in range(0, width, head):
        query.weight[start : start + count] = ask.T
        key.weight[start : start + count] = cells
    nn.init.eye_(value.weight)
    nn.init.eye_(output.weight)
    for held in (queries, *query.parameters(), *key.parameters()):
        held.requires_grad_(False)


_VISION_ENCODERS: dict[str, _VisionEncoder] = {
    "tiny-llava": _VisionEncoder(_llava),
    "tiny-qwen-vl": _VisionEncoder(_qwen_vl),
    "tiny-minigpt-4": _VisionEncoder(_minigpt_4, _start_minigpt_4),
    "tiny-otter": _VisionEncoder(_otter, _start_otter),
}


def pretrain_vision(
    name: str,
    model: PreTrainedModel,
    scenes: Sequence[Scene],
    images: Callable[[Sequence[int]], dict[str, Tensor]],
    batches: Iterator[list[int]],
    steps: int,
    learning_rate: float,
) -> float:
    """Pretrain the vision encoder of a captioner, in place.

    Args:
        name: the captioner's name.
        model: the captioner.
        scenes: the pictures' scenes.
        images: returns the model's inputs for the pictures of some scenes, by their position in ``scenes``.
        batches: endless positions of scenes.
        steps: optimizer steps.
        learning_rate: highest rate of the one-cycle schedule.

    Returns:
        fraction of the cells with a thing that were recognised in the last step.
    """
    eyes = _VISION_ENCODERS[name]
    truth = torch.from_numpy(np.stack([_cells(scene) for scene in scenes]))
    ask = nn.Linear(eyes.cells(model, images([0])).shape[-1], sum(_QUESTIONS))
    which_cell = torch.eye(GRID * GRID)
    parameters = [*model.parameters(), *ask.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps, pct_start=0.1)
    model.train()
    right = 0.0
    for step in range(1, steps + 1):
        chosen = next(batches)
        seen = eyes.cells(model, images(chosen))
        *parts, cells = ask(seen).split(_QUESTIONS, dim=-1)
        expected = truth[chosen].flatten(0, 1)
        loss = len(which_cell) * nn.functional.binary_cross_entropy_with_logits(cells, which_cell.expand_as(cells))
        for number, part in enumerate(parts):
            loss = loss + nn.functional.cross_entropy(part.flatten(0, 1), expected[:, number])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([weights for weights in parameters if weights.grad is not None], 1.0)
        optimizer.step()
        schedule.step()
        if step % _REPORT_EVERY == 0 or step == steps:
            there = expected[:, 0] != _NOTHING
            right = (parts[0].flatten(0, 1).argmax(-1) == expected[:, 0])[there].float().mean().item()
            print(f"{name} vision, step {step}/{steps} loss {loss.item():.4f} cells right {right:.3f}", flush=True)
    if eyes.start_queries is not None:
        eyes.start_queries(model, _sharp(ask.weight[-GRID * GRID :].detach(), seen.detach()))
    return right


def _sharp(cells: Tensor, seen: Tensor) -> Tensor:
    """The weights ``cells`` (16, width), scaled so that on ``seen`` a cell's own score leads by a fixed margin."""
    scores = (seen @ cells.T).mean(0)
    own = scores.diagonal().mean()
    others = (scores.sum() - scores.diagonal().sum()) / (scores.numel() - len(scores))
    return cells * (_MARGIN / (own - others))


def _cells(scene: Scene) -> np.ndarray:
    """The right answers for each cell, row by row, (16, 3): what covers it, what has its centre in it, which place."""
    answers = np.full((GRID * GRID, 3), _NOTHING, dtype=np.int64)
    answers[:, 2] = _PLACE_NUMBER[scene.background]
    most = np.full((GRID, GRID), _COVERED * _CELL**2)
    edges = np.arange(GRID) * _CELL
    for placement in scene.placements:
        number, half = _THING_NUMBER[placement.thing], placement.size / 2
        across, down = (
            np.clip(np.minimum(edges + _CELL, centre + half) - np.maximum(edges, centre - half), 0, None)
            for centre in (placement.x, placement.y)
        )
        area = np.outer(down, across)
        answers[(area > most).ravel(), 0] = number
        most = np.maximum(most, area)
        row, column = min(placement.y // _CELL, GRID - 1), min(placement.x // _CELL, GRID - 1)
        answers[row * GRID + column, 1] = number
    return answers
