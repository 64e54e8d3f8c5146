"""States for resuming a training: `step-00001000/`, written atomically, with tensors in safetensors and no pickle."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from caploom.storage.writing import draft_beside, fsync_path

_TENSORS, _FACTS = "tensors.safetensors", "facts.json"
_KEPT = 2


@dataclass(frozen=True)
class TrainingState:
    """A training's state after `step` steps; `facts` are JSON values."""

    step: int
    tensors: dict[str, torch.Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix` and a dot, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor for name, tensor in self.tensors.items() if name.startswith(start)}


def write_state(folder: Path, state: TrainingState, job: str) -> None:
    """Write a state of the job of that fingerprint; the two newest are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{state.step:08d}"
    draft = draft_beside(target)
    draft.mkdir()
    try:
        # Copies: the format does not support tensors that share memory, such as tied weights.
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.tensors.items()}
        save_file(tensors, draft / _TENSORS)
        facts = {"job": job, "step": state.step, **state.facts}
        (draft / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
        for file in (draft / _TENSORS, draft / _FACTS, draft):
            fsync_path(file)
        if target.exists():  # of another job, or damaged: this job's own would have been resumed
            shutil.rmtree(target)
        draft.rename(target)
        fsync_path(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for old in sorted(folder.glob("step-*"))[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def newest_state(folder: Path, job: str) -> tuple[TrainingState | None, list[str]]:
    """The newest complete state of that job, and a sentence for each newer one that is damaged."""
    notes: list[str] = []
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        try:
            facts = dict(json.loads((candidate / _FACTS).read_text(encoding="utf-8")))
            if facts.pop("job") != job:
                continue
            return TrainingState(facts.pop("step"), load_file(candidate / _TENSORS), facts), notes
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            notes.append(f"{candidate.name} cannot be resumed from ({error}), so the previous one was.")
    return None, notes


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's moments and step counts, named by the parameter's number."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, moments in state.items() for name, tensor in moments.items()}


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what `optimizer_tensors` returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, moment = name.partition(".")
        state.setdefault(int(number), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
