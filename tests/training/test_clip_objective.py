"""A step's gradients, whole and in parts, in full and in half precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.batches import Batch
from caploom.training.clip_model import create_clip_model, save_checkpoint
from caploom.training.clip_objective import ClipObjective
from caploom.training.job import TrainingJob
from caploom.training.objective import StepContext
from caploom.training.processes import Processes
from caploom.training.settings import ClipTrainerSettings
from caploom.training.trainer import _Loop, train

torch.set_num_threads(1)

_BATCH = 8


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    def make(architecture: Any = None, **changes: Any) -> ClipTrainerSettings:
        model = str(write_tiny_architecture(tmp_path, architecture))
        known = {"model": model, "steps": 20, "batch_size": _BATCH, "learning_rate": 3e-3, "device": "cpu"}
        return ClipTrainerSettings.model_validate({**known, **changes})

    return make


def random_batch(objective: ClipObjective, texts_an_image: list[int] | None = None) -> Batch:
    counts = texts_an_image or [1] * _BATCH
    images = torch.randint(0, 256, (len(counts), 3, 32, 32), generator=torch.Generator().manual_seed(0))
    tokens = objective.tokenize([f"text number {number} {'of many ' * (number % 4)}" for number in range(sum(counts))])
    owners = None if texts_an_image is None else torch.repeat_interleave(torch.tensor(counts))
    return Batch(images.to(torch.uint8), tokens, owners)


def context(objective: ClipObjective, **changes: Any) -> StepContext:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    known = {"scaler": scaler, "processes": Processes(0, 1, torch.device("cpu")), "module": objective.module.train()}
    return StepContext(**{"step": 0, "steps": 20, **known, **changes})


def step(objective: ClipObjective, batch: Batch, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and the gradients that it leaves."""
    torch.manual_seed(0)
    objective.module.zero_grad(set_to_none=True)
    loss = objective.backward(batch, context(objective, **changes))["loss"].item()
    return loss, {name: p.grad for name, p in objective.module.named_parameters() if p.grad is not None}


def assert_same(gradients: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To the digits of single precision, of each parameter as a whole."""
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (gradients[name] - gradient).norm() <= 2e-6 * max(1.0, gradient.norm().item()), name


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 7])
@pytest.mark.parametrize("texts", [None, [1, 3, 2, 1, 1, 4, 2, 1]])
@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_a_step_in_parts_is_the_whole_step(settings: Any, loss: str, texts: list[int] | None, micro_batch: int) -> None:
    objective = ClipObjective(settings(loss=loss), seed=1)
    batch = random_batch(objective, texts)
    whole_loss, whole = step(objective, batch)
    parts_loss, parts = step(objective, batch, micro_batch=micro_batch)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-6)
    assert any(gradient.norm() > 1 for gradient in whole.values())
    assert_same(parts, whole)


def test_parts_drop_out_the_same_when_they_are_computed_again(settings: Any) -> None:
    """Beside one graph over all parts, which needs their memory at once."""
    objective = ClipObjective(settings({"vision_cfg": {"patch_dropout": 0.5}}), seed=1)
    batch, given = random_batch(objective), context(objective)
    torch.manual_seed(0)
    images = objective.decoder.normalize(batch.images)
    features = [objective.module(images[start : start + 3], batch.tokens[start : start + 3]) for start in (0, 3, 6)]
    after = torch.get_rng_state()
    expected = objective._loss(features, None, given)
    expected.backward()
    one_graph = {name: p.grad.clone() for name, p in objective.module.named_parameters() if p.grad is not None}
    loss, parts = step(objective, batch, micro_batch=3)
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert_same(parts, one_graph)
    # The next step draws other numbers, the same ones that it would have drawn.
    assert torch.equal(torch.get_rng_state(), after)
    assert objective.backward(batch, given)["loss"].item() != pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_gradient_checkpointing_changes_no_gradient(settings: Any, micro_batch: int | None) -> None:
    plain = ClipObjective(settings(), seed=1)
    again = ClipObjective(settings(gradient_checkpointing=True), seed=1)
    batch = random_batch(plain)
    expected_loss, expected = step(plain, batch, micro_batch=micro_batch)
    loss, gradients = step(again, batch, micro_batch=micro_batch)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_same(gradients, expected)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_half_precision_scales_the_gradients_of_parts_too(settings: Any, micro_batch: int | None) -> None:
    objective = ClipObjective(settings(), seed=1)
    batch = random_batch(objective)
    _, expected = step(objective, batch)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    _, scaled = step(objective, batch, micro_batch=micro_batch, scaler=scaler, half=torch.float16)
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    wrong = torch.stack([(scaled[name] / 2**10 - gradient).norm() for name, gradient in expected.items()]).norm()
    assert wrong < 0.02 * total


def test_a_gradient_that_overflows_is_passed_over_and_the_scale_halved(tmp_path: Path, settings: Any) -> None:
    """fp16 as on a GPU, which `train` refuses where there is none."""
    job = TrainingJob(training_set=[], settings=settings(precision="fp16"), seed=1, out=tmp_path)
    objective = ClipObjective(job.settings, seed=1)
    loop = _Loop(job, Processes(0, 1, torch.device("cpu")), objective, lambda event: None)
    loop._scaler.load_state_dict({**loop._scaler.state_dict(), "scale": 2.0**40})
    batch = random_batch(objective)
    before = {name: weight.clone() for name, weight in objective.module.state_dict().items()}
    loop._step(batch)
    assert loop._scaler.get_scale() == 2.0**39
    assert all(torch.equal(weight, before[name]) for name, weight in objective.module.state_dict().items())
    while loop._scaler.get_scale() > 2.0**8:
        scale = loop._scaler.get_scale()
        loop._step(batch)
        if loop._scaler.get_scale() == scale:
            break
    changed = objective.module.state_dict()
    assert not all(torch.equal(weight, before[name]) for name, weight in changed.items())
    assert all(weight.isfinite().all() for weight in changed.values())


def test_gradients_that_are_no_numbers_stop_training_though_the_loss_is_one(tmp_path: Path, settings: Any) -> None:
    """Image features of length zero: every pair is as likely, but the direction to better ones has no bounds."""
    given = settings()
    start, out = tmp_path / "start", tmp_path / "out"
    start.mkdir()
    out.mkdir()
    model = create_clip_model(given.model, seed=1)
    with torch.no_grad():
        model.network.visual.proj.zero_()
        model.network.visual.ln_post.weight.fill_(1e15)
    save_checkpoint(model, start)
    job = TrainingJob(
        training_set=[TrainingFiles(tmp_path).colours_shard()], settings=given, seed=1, out=out, initial=start
    )
    with pytest.raises(TrainingError, match=r"^The gradient stopped being a number between steps 1 and 1; lower the"):
        train(job, lambda event: None)
    assert list(out.iterdir()) == []


def test_siglip_cannot_go_on_from_a_checkpoint_without_its_bias(tmp_path: Path, settings: Any) -> None:
    save_checkpoint(create_clip_model(settings().model, seed=1), tmp_path)
    with pytest.raises(TrainingError, match=r"was trained without SigLIP's bias; set the trainer's loss to clip\.$"):
        ClipObjective(settings(loss="siglip"), seed=1, initial=tmp_path)


def test_clip_goes_on_from_siglip_and_leaves_the_bias_alone(tmp_path: Path, settings: Any) -> None:
    save_checkpoint(create_clip_model(settings().model, seed=1, logit_bias=True), tmp_path)
    objective = ClipObjective(settings(), seed=1, initial=tmp_path)
    whole, parts = (step(objective, random_batch(objective), micro_batch=count)[1] for count in (None, 3))
    assert whole.keys() == parts.keys()
    assert "network.logit_scale" in whole
    assert "network.logit_bias" not in whole


def test_siglip_learns_colours(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "out").mkdir()
    shard = TrainingFiles(tmp_path).colours_shard()
    result = train_files([shard], settings(loss="siglip", steps=40), seed=0, out=tmp_path / "out")
    assert result.final_loss < 0.6 * result.losses[0][1]
