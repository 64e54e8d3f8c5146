"""CLIP and SigLIP as an objective: two towers of open_clip and a contrastive loss over the global batch."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from caploom.errors import TrainingError
from caploom.training.batches import Batch
from caploom.training.clip_model import Network, encode_text, load_checkpoint, save_checkpoint, trim_padding
from caploom.training.clip_weights import start_model
from caploom.training.gradient_cache import Features, backward_in_parts
from caploom.training.images import ImageDecoder
from caploom.training.losses import clip_loss, multi_positive_loss, siglip_loss
from caploom.training.objective import StepContext
from caploom.training.settings import ClipTrainerSettings

_MAX_LOGIT_SCALE = math.log(100)  # CLIP's own limit: without it large-scale training became unstable


class ClipObjective:
    """An `Objective`; see there."""

    def __init__(self, settings: ClipTrainerSettings, *, seed: int, initial: Path | None = None) -> None:
        sigmoid = settings.loss == "siglip"
        if initial is not None:
            self._model = load_checkpoint(initial)
        else:
            self._model = start_model(settings.model, settings.pretrained, seed=seed, logit_bias=sigmoid)
        network = self._model.network
        if sigmoid and network.logit_bias is None:
            raise TrainingError(
                f"{initial}: this checkpoint was trained without SigLIP's bias; set the trainer's loss to clip."
            )
        if settings.gradient_checkpointing:
            _checkpoint_gradients(network, settings.model)
        self._sigmoid, self._batch_size = sigmoid, settings.batch_size
        if not sigmoid and network.logit_bias is not None:
            network.logit_bias.requires_grad_(False)  # processes would wait for its gradients, which never come
        self.module: torch.nn.Module = _Towers(network, bias=sigmoid)
        self.decoder = ImageDecoder(self._model.preprocessing, draft=True)
        self.tokenize = self._model.tokenize
        self.notes = _notes(network, settings)
        # Convolutional networks run up to twice as fast with channels last; in a transformer it only costs time.
        convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in network.modules())
        self.memory_format = torch.channels_last if convolutions > 1 else torch.contiguous_format

    def backward(self, batch: Batch, context: StepContext) -> Mapping[str, torch.Tensor]:
        """See `Objective`."""
        device = context.processes.device
        images = self.decoder.normalize(batch.images.to(device, non_blocking=True))
        images = images.contiguous(memory_format=self.memory_format)
        tokens = trim_padding(self._network, batch.tokens).to(device, non_blocking=True)
        owners = None if batch.owners is None else batch.owners.to(device)
        # All processes take the same path, even where one lacks images: otherwise they would wait for each other.
        whole = self._batch_size // context.processes.count
        count = context.micro_batch or whole
        if count >= whole:
            loss = self._loss([self._encode(context.module, images, tokens, context)], owners, context)
            context.scaler.scale(loss).backward()
            return {"loss": loss.detach()}
        parts = [
            (images[start : start + count], tokens[_texts(owners, start, start + count)])
            for start in range(0, len(images), count)
        ]
        loss = backward_in_parts(
            parts,
            lambda part: self._encode(self.module, *part, context),
            lambda part: self._encode(context.module, *part, context),
            lambda features: self._loss(features, owners, context),
            context,
        )
        return {"loss": loss}

    def after_step(self, context: StepContext) -> None:
        """Keep the scale within CLIP's limits."""
        with torch.no_grad():
            self._network.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing beyond the module's own."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Nothing."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder of open_clip's layout."""
        save_checkpoint(self._model, folder)

    @property
    def _network(self) -> Network:
        return self._model.network

    def _encode(
        self, module: torch.nn.Module, images: torch.Tensor, tokens: torch.Tensor, context: StepContext
    ) -> Features:
        with context.autocast():
            features: Features = module(images, tokens)
        # In full precision: logits are scaled by up to a hundred, where half precision has few digits left.
        return tuple(feature.float() for feature in features)

    def _loss(self, parts: list[Features], owners: torch.Tensor | None, context: StepContext) -> torch.Tensor:
        gather = context.processes.gather
        own_images = torch.cat([part[0] for part in parts])
        images, texts = gather(own_images), gather(torch.cat([part[1] for part in parts]))
        scale, *bias = parts[-1][2:]
        if owners is not None:
            before = sum(context.processes.lengths(len(own_images))[: context.processes.rank])
            owners = gather(owners + before)
        if self._sigmoid:
            each = torch.arange(len(images), device=images.device)
            return siglip_loss(images, texts, scale, bias[0], each if owners is None else owners)
        return clip_loss(images, texts, scale) if owners is None else multi_positive_loss(images, texts, scale, owners)


class _Towers(torch.nn.Module):
    """Both encoders in one forward pass, as several processes require."""

    def __init__(self, network: Network, *, bias: bool) -> None:
        super().__init__()
        self.network = network
        self._bias = bias

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Features:
        """L2-normalized image and text features, the scale of their logits, and the bias where the loss takes one."""
        network = self.network
        features = network.encode_image(images, normalize=True), encode_text(network, tokens)
        bias = (network.logit_bias,) if self._bias else ()
        return *features, network.logit_scale.exp(), *bias


def _texts(owners: torch.Tensor | None, start: int, stop: int) -> slice:
    """The texts of images start to stop; owners are in the order of the images."""
    if owners is None:
        return slice(start, stop)
    ends = torch.searchsorted(owners, torch.tensor([start, stop], device=owners.device))
    return slice(int(ends[0]), int(ends[1]))


def _checkpoint_gradients(network: Network, model: str) -> None:
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError, NotImplementedError, ValueError) as error:
        raise TrainingError(
            f"{model} cannot recompute its activations ({error}); set the trainer's gradient_checkpointing to "
            "false, or a smaller micro_batch."
        ) from error


def _notes(network: Network, settings: ClipTrainerSettings) -> list[str]:
    normalized = any(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in network.modules())
    if not normalized or (settings.micro_batch is None and settings.processes == 1):
        return []
    return [
        f"{settings.model} has batch normalization, which sees a micro_batch or a process's part at a time and not the "
        "whole batch: its steps differ from those of one process with all of it."
    ]
