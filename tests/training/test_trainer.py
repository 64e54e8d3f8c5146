import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from training_files import TrainingFiles, train_files, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.clip_model import create_clip_model, load_checkpoint
from caploom.training.curve import LOSSES
from caploom.training.optimization import learning_rate
from caploom.training.settings import ClipTrainerSettings

torch.set_num_threads(1)

Trainer = Callable[..., ClipTrainerSettings]


@pytest.fixture
def tiny_trainer(tmp_path: Path) -> Trainer:
    model = str(write_tiny_architecture(tmp_path))

    def make(**changes: Any) -> ClipTrainerSettings:
        settings = {"model": model, "steps": 6, "batch_size": 8, "learning_rate": 3e-3, "device": "cpu"}
        return ClipTrainerSettings.model_validate({**settings, **changes})

    return make


@pytest.fixture
def colours_shard(tmp_path: Path) -> Path:
    return TrainingFiles(tmp_path).colours_shard()


def out_folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_same_seed_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    outs = [out_folder(tmp_path, name) for name in ("one", "same", "workers", "other")]
    for out, seed, workers in zip(outs, (7, 7, 7, 8), (0, 0, 1, 0), strict=True):
        train_files([colours_shard], tiny_trainer(workers=workers), seed=seed, out=out)
    one, same, workers, other = ((out / "model.safetensors").read_bytes() for out in outs)
    assert one == same == workers
    assert one != other


def test_training_learns_colours_and_says_what_it_cost(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    out, seen = out_folder(tmp_path, "out"), []
    settings = tiny_trainer(steps=40, warmup_steps=5)
    result = train_files(
        [colours_shard], settings, seed=0, out=out, report=lambda event: seen.append((event.step, event.steps))
    )
    assert seen == [(step, 40) for step in range(1, 41)]
    assert (result.steps, result.samples_seen, result.device, result.failures) == (40, 320, "cpu", {})
    # Guessing among eight pairs costs log 8; a batch holds about two pairs of a colour, which nothing can tell apart.
    assert result.losses[0][1] > math.log(8) - 0.1
    assert result.final_loss == result.losses[-1][1] < 1.2
    assert 0 < result.data_wait_share < 1
    assert result.samples_per_second > 320 / result.seconds
    curve = pq.read_table(out / "losses.parquet")
    assert curve.schema == LOSSES
    assert curve["step"].to_pylist() == [step for step, _ in result.losses]
    assert curve["learning_rate"][0].as_py() == pytest.approx(settings.learning_rate / 5)
    assert load_checkpoint(out).architecture["embed_dim"] == 16


def test_bfloat16_trains_and_writes_full_precision_weights(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    out = out_folder(tmp_path, "out")
    result = train_files([colours_shard], tiny_trainer(precision="bf16", steps=20), seed=0, out=out)
    assert result.final_loss < result.losses[0][1]
    assert all(weight.dtype == torch.float32 for weight in load_file(out / "model.safetensors").values())


def test_half_precision_without_a_gpu_is_refused(tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer) -> None:
    with pytest.raises(TrainingError, match="fp16 needs a GPU"):
        train_files([colours_shard], tiny_trainer(precision="fp16"), seed=0, out=tmp_path)


def test_loss_that_is_no_number_stops_training(tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer) -> None:
    settings = tiny_trainer(learning_rate=1e30, grad_clip_norm=None, steps=10)
    with pytest.raises(TrainingError, match=r"The loss stopped being a number between steps .*learning_rate"):
        train_files([colours_shard], settings, seed=0, out=tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_batch_larger_than_the_training_set_is_refused(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    with pytest.raises(TrainingError, match="A batch of 32 needs as many rows, and the training set has 24"):
        train_files([colours_shard], tiny_trainer(batch_size=32), seed=0, out=tmp_path)


def test_deleted_images_are_reported_and_training_goes_on(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    (tmp_path / "images" / "004.png").unlink()
    result = train_files([colours_shard], tiny_trainer(), seed=0, out=out_folder(tmp_path, "out"))
    assert result.failures == {"missing_image": 1}
    assert 42 <= result.samples_seen < 48  # six steps of eight, two epochs: its place stays empty


def test_logit_scale_never_exceeds_a_hundred(tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer) -> None:
    out = out_folder(tmp_path, "out")
    train_files([colours_shard], tiny_trainer(steps=30, learning_rate=0.5), seed=0, out=out)
    assert load_checkpoint(out).network.logit_scale.item() <= math.log(100) + 1e-6


def test_gains_biases_and_logit_scale_are_not_decayed(
    tmp_path: Path, colours_shard: Path, tiny_trainer: Trainer
) -> None:
    # A rate too small to learn by, and a decay so strong that what is decayed visibly shrinks.
    out = out_folder(tmp_path, "out")
    settings = tiny_trainer(learning_rate=1e-7, weight_decay=1e6, steps=4)
    train_files([colours_shard], settings, seed=0, out=out)
    trained = load_checkpoint(out).network
    assert trained.logit_scale.item() == pytest.approx(math.log(1 / 0.07), abs=1e-4)
    assert trained.ln_final.weight.mean().item() == pytest.approx(1.0, abs=1e-4)
    untrained = create_clip_model(settings.model, seed=0).network
    assert trained.token_embedding.weight.norm() < 0.9 * untrained.token_embedding.weight.norm()


def test_learning_rate_warms_up_linearly_and_decays_to_zero(tiny_trainer: Trainer) -> None:
    settings = tiny_trainer(steps=100, warmup_steps=10, learning_rate=1)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates == [*rates[:10], *sorted(rates[10:], reverse=True)]
    assert rates[-1] < 0.001
    constant = tiny_trainer(steps=100, warmup_steps=10, learning_rate=1, schedule="constant")
    assert [learning_rate(step, constant) for step in range(100)] == [*rates[:10], *[1.0] * 90]


def test_warm_up_that_never_ends_is_refused(tiny_trainer: Trainer) -> None:
    with pytest.raises(ValueError, match=r"warmup_steps \(6\) must be below steps \(6\)"):
        tiny_trainer(warmup_steps=6)


def test_architecture_file_is_relative_to_the_yaml_and_a_name_stays_a_name(tmp_path: Path) -> None:
    def model(value: str) -> str:
        return ClipTrainerSettings.model_validate({"model": value, "steps": 1}, context={"base": tmp_path}).model

    assert model("mine.json") == str(tmp_path / "mine.json")
    assert model("ViT-B-32") == "ViT-B-32"
