"""Trains a model on a training set: batches, an objective's loss, AdamW, and states for resuming.

Everything random comes from one seed: the initial weights, the order of the rows, the captions drawn, dropout. On the
CPU the same seed, settings and number of threads give the same weights, bit for bit, also when a killed training is
resumed.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from caploom.errors import TrainingError
from caploom.training.batches import Batch, BatchStream
from caploom.training.curve import LOSSES, LOSSES_FILE, Curve
from caploom.training.job import TrainingEvent, TrainingJob, TrainingResult
from caploom.training.objective import Objective, StepContext
from caploom.training.objectives import create_objective
from caploom.training.optimization import adamw, learning_rate, moving_average, trainable
from caploom.training.processes import Processes
from caploom.training.rows import TrainingRows
from caploom.training.training_state import (
    TrainingState,
    load_optimizer_tensors,
    newest_state,
    optimizer_tensors,
    write_state,
)

_MIB = 2**20
_HALF = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_LEAST_LOSS_SCALE = 1.0  # fp16 starts at 65,536 and halves at each overflow


def train(job: TrainingJob, report: Callable[[TrainingEvent], None]) -> TrainingResult | None:
    """Train and write the checkpoint and its loss curve into `job.out`; returns the result, in the first process alone.

    `report` is called there too, at each point of the curve and at least every ten seconds.
    Raises `TrainingError` when training cannot start, or its loss or gradients stop being numbers.
    """
    started = time.perf_counter()
    processes = Processes.current(job.settings.device)
    if job.settings.precision == "fp16" and processes.device.type == "cpu":
        raise TrainingError("The precision fp16 needs a GPU; set the trainer's precision to fp32 or bf16.")
    rows = TrainingRows(job.training_set, moves=job.moves)
    objective = create_objective(job.settings, seed=job.seed, initial=job.initial)
    # Layers with randomness (dropout, stochastic depth) follow the seed too; the caller's generator is left alone.
    with torch.random.fork_rng(devices=[processes.device] if processes.device.type == "cuda" else []):
        # Each process drops different units, like the parts of one large batch.
        torch.manual_seed(job.seed + 1_000_003 * processes.rank)
        loop = _Loop(job, processes, objective, report)
        stream = BatchStream(
            rows,
            objective.decoder,
            objective.tokenize,
            batch_size=job.settings.batch_size,
            seed=job.seed,
            workers=job.settings.workers,
            cache_bytes=job.settings.image_cache_mb * _MIB,
            max_failed_share=job.settings.max_failed_share,
            rank=processes.rank,
            processes=processes.count,
            first_step=loop.step,
            resized=job.resized,
            pin_memory=processes.device.type == "cuda",
        )
        loop.run(stream)
    return loop.finish(stream, started)


class _Loop:
    """The optimizer and its steps."""

    def __init__(
        self, job: TrainingJob, processes: Processes, objective: Objective, report: Callable[[TrainingEvent], None]
    ) -> None:
        self._job, self._settings, self._processes, self._report = job, job.settings, processes, report
        self._fingerprint = job.fingerprint
        self._objective = objective
        module = objective.module.to(processes.device).to(memory_format=objective.memory_format).train()
        if processes.count > 1 and processes.device.type == "cuda":
            module = objective.module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
        self._optimizer = adamw(module, self._settings)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=self._settings.precision == "fp16")
        decay = self._settings.ema_decay
        self._average = moving_average(module, decay) if decay is not None else None
        self._notes = list(objective.notes)
        self._failed_earlier: dict[str, str] = {}
        self._samples = 0
        self._curve = Curve(self._settings.steps)
        self.step = self._resumed_from = self._resume()
        self._wrapped = processes.wrapped(module)

    def run(self, stream: BatchStream) -> None:
        """The steps from here to the last."""
        batches = iter(stream)
        self._curve.start()
        while self.step < self._settings.steps:
            batch = self._curve.timed(lambda: next(batches))
            self._step(batch)
            self.step += 1
            if self._curve.due(self.step):
                event = self._curve.event(self.step, self._settings.batch_size)
                self._check(event)
                if self._processes.first:
                    self._report(event)
            every = self._settings.save_every
            if every is not None and self.step % every == 0 and self.step < self._settings.steps:
                self._save_state(stream)

    def finish(self, stream: BatchStream, started: float) -> TrainingResult | None:
        """Write the checkpoint."""
        reports = json.dumps({"failed": self._failed(stream), "samples": self._samples, "cut": stream.truncated_share})
        parts = [json.loads(each) for each in self._processes.gather_bytes(reports.encode())]
        module = self._objective.module
        if self._average is not None:
            module.load_state_dict(self._average.module.state_dict())
        if not self._processes.first:
            self._processes.barrier()
            return None
        out = self._job.out
        self._objective.save(out)
        pq.write_table(pa.Table.from_pylist(self._curve.points, schema=LOSSES), out / LOSSES_FILE)
        self._processes.barrier()
        # A process sees other rows in another epoch: a row that several of them saw is counted once.
        failures = Counter({row: reason for part in parts for row, reason in part["failed"].items()}.values())
        seconds, stepped = self._curve.seconds, self.step - self._resumed_from
        return TrainingResult(
            steps=self._settings.steps,
            samples_seen=sum(part["samples"] for part in parts),
            seconds=time.perf_counter() - started,
            samples_per_second=stepped * self._settings.batch_size / seconds,
            data_wait_share=self._curve.waited / seconds,
            losses=self._curve.losses(),
            parts=self._curve.parts(),
            final_loss=self._curve.points[-1]["loss"],
            device=str(self._processes.device),
            processes=self._processes.count,
            threads=torch.get_num_threads() if self._processes.device.type == "cpu" else None,
            resumed_from=self._resumed_from,
            failures=dict(sorted(failures.items())),
            truncated_share=sum(part["cut"] for part in parts) / len(parts),
            notes=self._notes,
        )

    def _step(self, batch: Batch) -> None:
        rate = learning_rate(self.step, self._settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        context = StepContext(
            step=self.step,
            steps=self._settings.steps,
            module=self._wrapped,
            processes=self._processes,
            scaler=self._scaler,
            half=_HALF[self._settings.precision],
            micro_batch=self._settings.micro_batch,
        )
        losses = self._objective.backward(batch, context)
        self._scaler.unscale_(self._optimizer)
        limit = self._settings.grad_clip_norm
        norm = torch.nn.utils.clip_grad_norm_(trainable(self._objective.module), math.inf if limit is None else limit)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._objective.after_step(context)
        if self._average is not None:
            self._average.update_parameters(self._objective.module)
        self._samples += len(batch.images)
        self._curve.add(losses, norm, rate)

    def _check(self, event: TrainingEvent) -> None:
        if self._settings.precision == "fp16":
            # In fp16 a step with overflowing gradients is skipped, and the scale is halved.
            wrong = "loss" if not math.isfinite(event.loss) else None
            if self._scaler.get_scale() < _LEAST_LOSS_SCALE:
                wrong = "gradient"
        else:
            figures = {"loss": event.loss, "gradient": event.gradient_norm}
            wrong = next((name for name, value in figures.items() if not math.isfinite(value)), None)
        if wrong is not None:
            raise TrainingError(
                f"The {wrong} stopped being a number between steps {self._curve.known + 1:,} and {self.step:,}; lower "
                "the trainer's learning_rate, lengthen warmup_steps, or set precision to fp32."
            )

    def _failed(self, stream: BatchStream) -> dict[str, str]:
        """The reason for each row that was unusable for this process, by its number, as JSON values."""
        return self._failed_earlier | {str(row): reason for row, reason in stream.failed_rows.items()}

    def _save_state(self, stream: BatchStream) -> None:
        if self._job.state is None:
            return
        mine = {"failed": self._failed(stream), "samples": self._samples}
        reports = self._processes.gather_bytes(json.dumps(mine).encode())
        random_states = self._processes.gather_bytes(_random_state(self._processes.device))
        if not self._processes.first:
            return
        tensors = {
            **_named("module", self._objective.module.state_dict()),
            **_named("optimizer", optimizer_tensors(self._optimizer)),
            **_named("objective", self._objective.state()),
            **{
                f"random.{rank}": torch.frombuffer(bytearray(state), dtype=torch.uint8)
                for rank, state in enumerate(random_states)
            },
        }
        if self._average is not None:
            tensors |= _named("average", self._average.state_dict())
        facts = {
            "curve": self._curve.state(),
            "scaler": self._scaler.state_dict(),
            "processes": [json.loads(report) for report in reports],
        }
        write_state(self._job.state, TrainingState(self.step, tensors, facts), self._fingerprint)

    def _resume(self) -> int:
        """Resume from the newest state; returns the steps already done."""
        if self._job.state is None:
            return 0
        state, notes = newest_state(self._job.state, self._fingerprint)
        self._notes += notes
        if state is None:
            return 0
        self._objective.module.load_state_dict(state.part("module"))
        load_optimizer_tensors(self._optimizer, state.part("optimizer"))
        self._objective.load_state(state.part("objective"))
        if self._average is not None:
            self._average.load_state_dict(state.part("average"))
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state.facts["scaler"])
        self._curve.load_state(state.facts["curve"])
        reports, rank = state.facts["processes"], self._processes.rank
        if len(reports) == self._processes.count:
            self._failed_earlier, self._samples = reports[rank]["failed"], reports[rank]["samples"]
            _set_random_state(state.tensors[f"random.{rank}"], self._processes.device)
        elif rank == 0:  # resumed on another number of devices: the first process keeps the counts
            self._failed_earlier = {row: reason for report in reports for row, reason in report["failed"].items()}
            self._samples = sum(report["samples"] for report in reports)
        return state.step


def _named(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _random_state(device: torch.device) -> bytes:
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0, dtype=torch.uint8)
    return bytes(torch.cat([torch.get_rng_state(), on_device]).tolist())


def _set_random_state(state: torch.Tensor, device: torch.device) -> None:
    length = len(torch.get_rng_state())
    torch.set_rng_state(state[:length])
    if device.type == "cuda" and len(state) > length:
        torch.cuda.set_rng_state(state[length:], device)
