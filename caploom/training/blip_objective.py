"""BLIP as an objective: contrastive, matching and captioning losses in one step (Li et al., 2022)."""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch

from caploom.errors import TrainingError
from caploom.training.batches import Batch
from caploom.training.blip_losses import (
    captioning_loss,
    contrastive_targets,
    hard_negatives,
    soft_cross_entropy,
    softened,
)
from caploom.training.blip_model import BlipModel, BlipNetwork, create_blip, load_blip, save_blip
from caploom.training.blip_queue import FeatureQueue
from caploom.training.images import ImageDecoder
from caploom.training.objective import StepContext
from caploom.training.settings import BlipTrainerSettings

_TEMPERATURES = (0.001, 0.5)
_SOFTENING = 0.1  # fraction of the steps until soft labels have their full weight; the first epoch in the original


class BlipObjective:
    """An `Objective`; see there.

    The contrastive loss is over the images and texts of all processes; hard negatives for matching come from a
    process's own part, as in the original. With a queue or soft labels, the other side of each similarity is a slowly
    moving average of the encoders (momentum encoders).
    """

    def __init__(self, settings: BlipTrainerSettings, *, seed: int, initial: Path | None = None) -> None:
        if settings.micro_batch is not None:
            raise TrainingError(
                "BLIP chooses its hard negatives among all images of a process's part, so a micro_batch would change "
                "the training; leave it out and lower batch_size, or set gradient_checkpointing."
            )
        self._settings, self._seed = settings, seed
        self._model: BlipModel = (
            load_blip(initial)
            if initial is not None
            else create_blip(settings.model, seed=seed, revision=settings.revision, pretrained=settings.pretrained)
        )
        network = self._model.network
        if settings.gradient_checkpointing:
            network.retrieval.gradient_checkpointing_enable()
            network.captioning.gradient_checkpointing_enable()
        self._momentum: BlipNetwork | None = None
        self._queue: FeatureQueue | None = None
        if settings.queue_size or settings.soft_labels:
            self._momentum = copy.deepcopy(network).requires_grad_(False)
            self._queue = FeatureQueue(settings.queue_size, network.retrieval.config.image_text_hidden_size, seed)
        self._new: tuple[torch.Tensor, torch.Tensor] | None = None
        self.module: torch.nn.Module = _Losses(network, self._model.start_token)
        self.decoder = ImageDecoder(self._model.preprocessing, draft=True)
        self.tokenize = self._model.tokenize
        self.memory_format = torch.contiguous_format
        self.notes: list[str] = []

    def backward(self, batch: Batch, context: StepContext) -> Mapping[str, torch.Tensor]:
        """See `Objective`."""
        device = context.processes.device
        images = self.decoder.normalize(batch.images.to(device, non_blocking=True))
        tokens = batch.tokens.to(device, non_blocking=True)
        tokens = tokens[:, : int(tokens.ne(0).sum(dim=1).max())]  # unneeded padding
        owners = torch.arange(len(images)) if batch.owners is None else batch.owners
        owners = owners.to(device)
        with context.autocast():
            others = self._momentum_features(images, tokens, context)
            losses: dict[str, torch.Tensor] = context.module(
                images, tokens, owners, others, self._softness(context), self._generator(context), context
            )
        total = losses["itc"] + losses["itm"] + losses["lm"]
        context.scaler.scale(total).backward()
        means = {name: context.processes.gather(loss.detach().reshape(1)).mean() for name, loss in losses.items()}
        return {"loss": sum(means.values(), torch.zeros((), device=device)), **means}

    def after_step(self, context: StepContext) -> None:
        """Keep the temperature within the original's limits, move the momentum encoders, fill the queue."""
        network = self._model.network
        with torch.no_grad():
            network.temperature.clamp_(*_TEMPERATURES)
            if self._momentum is None or self._queue is None:
                return
            averages, weights = tuple(self._momentum.parameters()), tuple(network.parameters())
            torch._foreach_lerp_(averages, weights, 1 - self._settings.momentum)
            if self._new is not None:
                self._queue.push(*self._new)

    def state(self) -> dict[str, torch.Tensor]:
        """The momentum encoders and the queue."""
        if self._momentum is None or self._queue is None:
            return {}
        momentum = {f"momentum.{name}": tensor for name, tensor in self._momentum.state_dict().items()}
        return momentum | {f"queue.{name}": tensor for name, tensor in self._queue.state().items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        if self._momentum is None or self._queue is None:
            return
        parts = {
            prefix: {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            for prefix in ("momentum.", "queue.")
        }
        self._momentum.load_state_dict(parts["momentum."])
        self._queue.load_state(parts["queue."])

    def save(self, folder: Path) -> None:
        """Write a BLIP checkpoint folder."""
        save_blip(self._model, folder)

    def _momentum_features(
        self, images: torch.Tensor, tokens: torch.Tensor, context: StepContext
    ) -> tuple[torch.Tensor, ...] | None:
        """Features of the global batch's images and texts by the momentum encoders, then those of the queue."""
        if self._momentum is None or self._queue is None:
            return None
        device = context.processes.device
        with torch.no_grad():
            momentum = self._momentum.to(device)
            new = tuple(
                context.processes.gather(features.float())
                for features in (momentum.encode_images(images)[0], momentum.encode_texts(tokens))
            )
        self._new = new[0], new[1]
        return *new, *self._queue.on(device)

    def _softness(self, context: StepContext) -> float:
        ramp = min(1.0, (context.step + 1) / max(1, round(_SOFTENING * context.steps)))
        return self._settings.soft_labels * ramp

    def _generator(self, context: StepContext) -> torch.Generator:
        """A generator that depends only on seed, step and process, so that a resumed training draws the same."""
        number = (self._seed * 1_000_003 + context.step) * 1_009 + context.processes.rank
        return torch.Generator().manual_seed(number % 2**63)


class _Losses(torch.nn.Module):
    """All three losses in one forward pass, as several processes require."""

    def __init__(self, network: BlipNetwork, start_token: int) -> None:
        super().__init__()
        self.network = network
        self._start_token = start_token

    def forward(
        self,
        images: torch.Tensor,
        tokens: torch.Tensor,
        owners: torch.Tensor,
        others: tuple[torch.Tensor, ...] | None,
        softness: float,
        generator: torch.Generator,
        context: StepContext,
    ) -> dict[str, torch.Tensor]:
        image_features, states = self.network.encode_images(images)
        text_features = self.network.encode_texts(tokens)
        # In full precision: similarities are divided by a few hundredths, where half precision has few digits left.
        with torch.autocast(images.device.type, enabled=False):
            image_features, text_features = image_features.float(), text_features.float()
            own = text_features @ image_features.T / self.network.temperature
            contrast = self._contrast(image_features, text_features, owners, others, softness, context)
        return {
            "itc": contrast,
            "itm": self._matching(states, tokens, owners, own, generator),
            "lm": self._captioning(states[owners], tokens),
        }

    def _contrast(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        owners: torch.Tensor,
        others: tuple[torch.Tensor, ...] | None,
        softness: float,
        context: StepContext,
    ) -> torch.Tensor:
        processes, temperature = context.processes, self.network.temperature
        before = sum(processes.lengths(len(images))[: processes.rank])
        images, texts, owners = processes.gather(images), processes.gather(texts), processes.gather(owners + before)
        if others is None:
            to_texts, to_images = contrastive_targets(owners, len(images), 0)
            logits = images @ texts.T / temperature
            return (soft_cross_entropy(logits, to_texts) + soft_cross_entropy(logits.T, to_images)) / 2
        other_images, other_texts, queued_images, queued_texts = others
        all_images, all_texts = torch.cat([other_images, queued_images]), torch.cat([other_texts, queued_texts])
        to_texts, _ = contrastive_targets(owners, len(images), len(all_texts))
        _, to_images = contrastive_targets(owners, len(images), len(all_images))
        if softness > 0:
            with torch.no_grad():
                to_texts = softened(to_texts, other_images @ all_texts.T / temperature, softness)
                to_images = softened(to_images, other_texts @ all_images.T / temperature, softness)
        return (
            soft_cross_entropy(images @ all_texts.T / temperature, to_texts)
            + soft_cross_entropy(texts @ all_images.T / temperature, to_images)
        ) / 2

    def _matching(
        self,
        states: torch.Tensor,
        tokens: torch.Tensor,
        owners: torch.Tensor,
        similarity: torch.Tensor,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Each text with its image, with a hard negative image, and its image with a hard negative text."""
        image_of, texts, labels = [owners], [tokens], [torch.ones_like(owners)]
        others = owners[:, None] != torch.arange(len(states), device=owners.device)[None, :]
        if len(states) > 1:
            negative_images = hard_negatives(similarity, others, generator).to(owners.device)
            negative_texts = hard_negatives(similarity.T[owners], others.T[owners], generator).to(owners.device)
            image_of += [negative_images, owners]
            texts += [tokens, tokens[negative_texts]]
            labels += [torch.zeros_like(owners), torch.zeros_like(owners)]
        logits = self.network.match(states[torch.cat(image_of)], torch.cat(texts))
        return torch.nn.functional.cross_entropy(logits.float(), torch.cat(labels))

    def _captioning(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        started = tokens.clone()
        started[:, 0] = self._start_token
        return captioning_loss(self.network.caption_logits(states, started).float(), started)
