"""Weight decay, clipping and averaging, beside the same by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.training.job import TrainingEvent
from caploom.training.optimization import adamw, moving_average
from caploom.training.settings import ClipTrainerSettings

torch.set_num_threads(1)


def settings(**changes: Any) -> ClipTrainerSettings:
    known = {"model": "ViT-B-32", "steps": 6, "batch_size": 8, "learning_rate": 3e-3, "device": "cpu"}
    return ClipTrainerSettings.model_validate({**known, **changes})


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def test_what_has_one_dimension_is_not_decayed_and_what_is_frozen_not_trained() -> None:
    module = small_network()
    module[0].weight.requires_grad_(False)
    decayed, free = adamw(module, settings(weight_decay=0.3, betas=(0.8, 0.9))).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert [p.shape for p in decayed["params"]] == [(2, 4)]
    assert [p.shape for p in free["params"]] == [(4,), (4,), (4,), (2,)]
    assert decayed["betas"] == (0.8, 0.9)


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.9999])
def test_the_average_is_that_of_the_weights_after_each_step(decay: float) -> None:
    module = small_network()
    average = moving_average(module, decay)
    torch.manual_seed(1)
    expected: dict[str, torch.Tensor] = {}
    for count in range(30):
        with torch.no_grad():
            for weight in module.parameters():
                weight.add_(torch.randn_like(weight))
            module(torch.randn(5, 3))  # moves the running figures
        average.update_parameters(module)
        kept = min(decay, (1 + count) / (10 + count))
        for name, weight in module.named_parameters():
            new = weight.detach().double()
            expected[name] = new if count == 0 else kept * expected[name] + (1 - kept) * new
    for name, weight in average.module.named_parameters():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-4, atol=1e-5, msg=name)
    for name, buffer in average.module.named_buffers():  # a normalization's figures are the newest, not averaged
        assert torch.equal(buffer, module.get_buffer(name)), name


def train_colours(folder: Path, name: str, **changes: Any) -> tuple[dict[str, torch.Tensor], list[TrainingEvent]]:
    out = folder / name
    out.mkdir()
    events: list[TrainingEvent] = []
    model = str(write_tiny_architecture(folder))
    shard = TrainingFiles(folder).colours_shard()
    train_files([shard], settings(model=model, **changes), seed=0, out=out, report=events.append)
    return load_file(out / "model.safetensors"), events


def test_the_average_is_what_is_written_and_changes_no_step(tmp_path: Path) -> None:
    """Beside the averages of the weights that trainings of one, two and three steps at a constant rate end with."""
    constant = {"schedule": "constant"}
    after = [train_colours(tmp_path, f"{steps}", steps=steps, **constant) for steps in (1, 2, 3)]
    averaged, events = train_colours(tmp_path, "averaged", steps=3, ema_decay=0.15, **constant)
    assert [event.loss for event in events] == [event.loss for event in after[-1][1]]
    for name, weight in averaged.items():
        expected = after[0][0][name].double()
        for weights, _ in after[1:]:
            expected = 0.15 * expected + 0.85 * weights[name].double()
        torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(averaged["visual.proj"], after[-1][0]["visual.proj"])


def test_gradients_are_clipped_and_their_norm_before_is_told(tmp_path: Path) -> None:
    """AdamW divides by the gradients' size, so only what clipping does to steps of different sizes is seen."""
    free, events = train_colours(tmp_path, "free", grad_clip_norm=None)
    wide, same_events = train_colours(tmp_path, "wide", grad_clip_norm=1e9)
    tight, other_events = train_colours(tmp_path, "tight", grad_clip_norm=1e-3)
    norms = [event.gradient_norm for event in events]
    assert all(norm > 1e-3 and math.isfinite(norm) for norm in norms)
    assert [event.gradient_norm for event in same_events] == norms
    assert other_events[0].gradient_norm == norms[0]
    assert all(torch.equal(wide[name], weight) for name, weight in free.items())
    assert not all(torch.equal(tight[name], weight) for name, weight in free.items())
