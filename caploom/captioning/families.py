"""What differs between families of models: how the processor is called, and which of the output's tokens are new."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin

if TYPE_CHECKING:
    from PIL.Image import Image


class Family:
    """Most families: one processor call with a flat list of images, one image a prompt, padded on the left."""

    padding_side = "left"

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model = model
        self.processor = processor
        # Decoder-only models go on from the last position of the prompt: padding must stand before it.
        processor.tokenizer.padding_side = self.padding_side
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    @classmethod
    def load(cls, location: str, common: dict[str, Any], options: dict[str, Any], **weights: Any) -> "Family":
        """Load processor and model; `common` goes to both, `options` to the processor alone, `weights` to the model."""
        processor = AutoProcessor.from_pretrained(location, **common, **options)
        model = AutoModelForImageTextToText.from_pretrained(location, **common, **weights)
        return cls(model, processor)

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        # A flat list, one image a prompt: given a list of lists, some processors put the image after the text.
        return self.processor(images=list(images), text=list(prompts), padding=True, return_tensors="pt")

    def new_tokens(self, output: torch.Tensor, inputs: BatchFeature) -> torch.Tensor:
        """Of what `generate` returned, the new tokens alone. Shapes: (batch, all) to (batch, new)."""
        return output[:, inputs["input_ids"].shape[1] :]


FAMILIES: dict[str, str] = {}
"""Families with ways of their own, `model_type` of the model's configuration to "module:Class"."""


def family_class(model_type: str) -> type[Family]:
    """The family of a model's `model_type`; most are plain `Family`."""
    if model_type not in FAMILIES:
        return Family
    module, name = FAMILIES[model_type].split(":")
    found: type[Family] = getattr(import_module(module), name)
    return found
