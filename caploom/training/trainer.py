"""Trains a CLIP model on a training set: symmetric contrastive loss (Radford et al., 2021), AdamW, warm-up and cosine.

Everything random comes from one seed: the initial weights, the order of the rows and the captions drawn. On the CPU the
same seed, settings and number of threads give the same weights, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from open_clip.loss import ClipLoss

from caploom.errors import TrainingError
from caploom.training.clip_model import (
    ClipModel,
    create_clip_model,
    encode_text,
    resolve_device,
    save_checkpoint,
    trim_padding,
)
from caploom.training.data import Batch, BatchStream, TrainingRows
from caploom.training.images import ImageDecoder
from caploom.training.losses import multi_positive_loss
from caploom.training.settings import ClipTrainerSettings

LOSSES_FILE = "losses.parquet"
LOSSES = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),  # mean over the steps since the row before
        pa.field("learning_rate", pa.float64(), nullable=False),  # of that step
    ]
)

_BETAS = (0.9, 0.98)  # CLIP's own, as is the limit: without it training at large scale grew unstable
_EPSILON = 1e-6
_MAX_LOGIT_SCALE = math.log(100)
_LOSS_POINTS = 100
_MIB = 2**20


@dataclass(frozen=True)
class TrainingResult:
    """What training was and cost.

    Attributes:
        steps: optimizer steps.
        samples_seen: steps x batch size.
        seconds: wall-clock time, from reading the training set to the written checkpoint.
        samples_per_second: while stepping.
        data_wait_share: share of the stepping time in which the device waited for data, 0 to 1.
        losses: (step, mean loss since the point before), at most about a hundred.
        final_loss: the last of them.
        device: where it ran, such as `cpu` or `cuda`.
        failures: rows that could not be used, by reason.
    """

    steps: int
    samples_seen: int
    seconds: float
    samples_per_second: float
    data_wait_share: float
    losses: list[tuple[int, float]]
    final_loss: float
    device: str
    failures: dict[str, int]


def train_clip(
    training_set: Sequence[Path],
    settings: ClipTrainerSettings,
    *,
    seed: int,
    out: Path,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingResult:
    """Train on Parquet shards of `TRAINING_ROWS` and write the checkpoint and its loss curve into the folder `out`.

    `progress` is called with (steps done, all steps) after each step. The caller makes `out` and commits it.
    Raises `TrainingError` when training cannot start or its loss stops being a number.
    """
    started = time.perf_counter()
    device = resolve_device(settings.device)
    if settings.precision == "fp16" and device.type == "cpu":
        raise TrainingError("The precision fp16 needs a GPU; set the trainer's precision to fp32 or bf16.")
    rows = TrainingRows(training_set)
    model = create_clip_model(settings.model, seed=seed)
    decoder = ImageDecoder(model.preprocessing)
    stream = BatchStream(
        rows,
        decoder,
        model.tokenize,
        batch_size=settings.batch_size,
        seed=seed,
        workers=settings.workers,
        cache_bytes=settings.image_cache_mb * _MIB,
    )
    # Layers that draw while training (dropout, stochastic depth) follow the seed too, and the caller's stream is kept.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        curve = _Steps(model, decoder, settings, device).run(iter(stream), progress)
    save_checkpoint(model, out)
    pq.write_table(pa.Table.from_pylist(curve.points, schema=LOSSES), out / LOSSES_FILE)
    return TrainingResult(
        steps=settings.steps,
        samples_seen=settings.steps * settings.batch_size,
        seconds=time.perf_counter() - started,
        samples_per_second=settings.steps * settings.batch_size / curve.seconds,
        data_wait_share=curve.waited / curve.seconds,
        losses=[(int(point["step"]), point["loss"]) for point in curve.points],
        final_loss=curve.points[-1]["loss"],
        device=str(device),
        failures=stream.failures,
    )


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """The share of the peak learning rate at a step (counted from 0): linear warm-up, then cosine decay to zero."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


@dataclass(frozen=True)
class _Curve:
    points: list[dict[str, float]]
    seconds: float
    waited: float  # seconds


class _Steps:
    """The optimizer and its loop."""

    def __init__(
        self, model: ClipModel, decoder: ImageDecoder, settings: ClipTrainerSettings, device: torch.device
    ) -> None:
        self._settings, self._device, self._decoder = settings, device, decoder
        # Convolutions run up to twice as fast with channels last; other layers are indifferent.
        self._network = model.network.to(device, memory_format=torch.channels_last).train()
        self._loss = ClipLoss()
        parameters = [parameter for parameter in self._network.parameters() if parameter.requires_grad]
        # Gains, biases and the logit scale have fewer than two dimensions; pulling them to zero helps nothing.
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=_BETAS, eps=_EPSILON)
        self._parameters = parameters
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        self._autocast_type = torch.float16 if settings.precision == "fp16" else torch.bfloat16

    def run(self, batches: Iterator[Batch], progress: Callable[[int, int], None] | None) -> _Curve:
        steps = self._settings.steps
        spacing = max(1, steps // _LOSS_POINTS)
        points: list[dict[str, float]] = []
        # Kept on the device until a point is due: reading each step's loss would make a GPU wait for it.
        pending: list[torch.Tensor] = []
        waited = 0.0
        started = time.perf_counter()
        for step in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            rate = self._settings.learning_rate * learning_rate_factor(
                step, steps=steps, warmup_steps=self._settings.warmup_steps
            )
            pending.append(self._step(batch, rate))
            if (step + 1) % spacing == 0 or step + 1 == steps:
                loss = torch.stack(pending).mean().item()
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"The loss stopped being a number between steps {step + 2 - len(pending):,} and {step + 1:,}; "
                        "lower the trainer's learning_rate, lengthen warmup_steps, or set precision to fp32."
                    )
                points.append({"step": step + 1, "loss": loss, "learning_rate": rate})
                pending = []
            if progress is not None:
                progress(step + 1, steps)
        return _Curve(points, time.perf_counter() - started, waited)

    def _step(self, batch: Batch, rate: float) -> torch.Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        images = self._decoder.normalize(batch.images.to(self._device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        tokens = trim_padding(self._network, batch.tokens).to(self._device, non_blocking=True)
        with torch.autocast(self._device.type, self._autocast_type, enabled=self._settings.precision != "fp32"):
            image_features = self._network.encode_image(images, normalize=True)
            text_features = encode_text(self._network, tokens)
        # In full precision: the logits are scaled by up to a hundred, where half precision has few digits left.
        features = image_features.float(), text_features.float(), self._network.logit_scale.exp()
        loss: torch.Tensor = (
            self._loss(*features)
            if batch.owners is None
            else multi_positive_loss(*features, batch.owners.to(self._device))
        )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        if self._settings.grad_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.grad_clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        with torch.no_grad():
            self._network.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
        return loss.detach()
