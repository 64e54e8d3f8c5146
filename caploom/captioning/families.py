"""The differences between families of models: how the processor is called, and which output tokens are new."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, PreTrainedModel, ProcessorMixin

from caploom.common.settings import nearest

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE = "<image>"
"""The placeholder in the prompts of the families below that place the image themselves."""


class Family:
    """Most families: one processor call, one image per prompt."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.model = model
        self.processor = processor
        # A decoder continues from the prompt's last position, so it is padded on the left. An encoder counts
        # positions from the left, so it is padded on the right (Florence-2; BLIP-2 and InstructBLIP with T5).
        processor.tokenizer.padding_side = "right" if self.text_model.config.is_encoder_decoder else "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    @classmethod
    def load(cls, location: str, common: dict[str, Any], options: dict[str, Any], **weights: Any) -> "Family":
        """Load processor and model; `common` goes to both, `options` to the processor alone, `weights` to the model."""
        processor = AutoProcessor.from_pretrained(location, **common, **options)
        _check_options(processor, options)
        model = AutoModelForImageTextToText.from_pretrained(location, **common, **weights)
        return cls(model, processor)

    @property
    def text_model(self) -> PreTrainedModel:
        """The part of the model that generates the text."""
        return self.model

    def end_tokens(self) -> list[int]:
        """The tokens that end a text."""
        ends = self.text_model.generation_config.eos_token_id
        return [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None]

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        # A chat template often writes the start token, and the tokenizer must not write it again.
        begun = {"add_special_tokens": False} if self._has_begun(prompts[0]) else {}
        # One list of images per prompt: of a flat list, SmolVLM and Gemma 3 assign all images to the first prompt.
        nested = [[image] for image in images]
        return self.processor(images=nested, text=list(prompts), padding=True, return_tensors="pt", **begun)

    def generate(self, inputs: BatchFeature, **options: Any) -> Any:
        """What the model's `generate` returns for inputs on its device."""
        return self.model.generate(**inputs, **options)

    def new_tokens(self, output: torch.Tensor, inputs: BatchFeature) -> torch.Tensor:
        """Only the new tokens of what `generate` returned. Shapes: (batch, all) to (batch, new)."""
        # An encoder-decoder's output begins with the decoder's start token; the prompt is not in it.
        known = 1 if self.text_model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return output[:, known:]

    def _has_begun(self, prompt: str) -> bool:
        beginning = self.processor.tokenizer.bos_token
        return bool(beginning) and prompt.startswith(beginning)


class Idefics(Family):
    """IDEFICS (Otter's family): its processor takes texts and images interleaved, and has no placeholder in a text.

    The image goes where `<image>` stands in the prompt, else before it.
    """

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        interleaved = []
        for image, prompt in zip(images, prompts, strict=True):
            before, after = _around_image(prompt)
            for text in (before, after):
                # The processor would download and show it: a raw caption from the web must not cause that.
                if " " not in text.strip(" ") and urlparse(text.strip(" ")).netloc:
                    raise ValueError(f"the prompt is nothing but a web address ({text.strip()})")
            interleaved.append([part for part in (before, image, after) if part])
        return self.processor(text=interleaved, padding=True, return_tensors="pt")


class Blip(Family):
    """BLIP: its `generate` overwrites the first token of each row and drops the last, unconditionally."""

    @property
    def text_model(self) -> PreTrainedModel:
        """The part of the model that generates the text."""
        return self.model.text_decoder

    def end_tokens(self) -> list[int]:
        """`generate` ends at the separator and not at the configuration's end token."""
        return [self.model.config.text_config.sep_token_id]

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        inputs = super().inputs(images, prompts)
        # The first token of a padded row is padding: what `generate` writes there belongs where the text begins.
        first = inputs["attention_mask"].argmax(dim=1, keepdim=True)
        inputs["input_ids"].scatter_(1, first, self.model.config.text_config.bos_token_id)
        return inputs

    def generate(self, inputs: BatchFeature, **options: Any) -> Any:
        """What the model's `generate` returns, which passes the padding token itself."""
        options.pop("pad_token_id")
        return super().generate(inputs, **options)

    def new_tokens(self, output: torch.Tensor, inputs: BatchFeature) -> torch.Tensor:
        """The new tokens alone: the prompt in the output lacks its last token."""
        return output[:, inputs["input_ids"].shape[1] - 1 :]


class Blip2(Family):
    """BLIP-2, which puts the image before the prompt; and MiniGPT-4, whose prompt marks its position with `<image>`.

    MiniGPT-4 is BLIP-2's ViT-g and Q-Former with a LLaMA (Vicuna). As in its release, the texts before and after the
    image are tokenized separately.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__(model, processor)
        if model.config.image_token_id is None:
            raise ValueError("its configuration names no image token: take a newer revision of the weights")
        # Processors saved by older versions lack it, and then silently leave the image out of the prompt.
        processor.num_query_tokens = model.config.num_query_tokens

    @property
    def text_model(self) -> PreTrainedModel:
        """The part of the model that generates the text."""
        return self.model.language_model

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        if IMAGE not in prompts[0]:
            return super().inputs(images, prompts)
        tokenizer = self.processor.tokenizer
        rows = [self._tokens(*_around_image(prompt)) for prompt in prompts]
        padded = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        pixels = self.processor.image_processor(list(images), return_tensors="pt")
        return BatchFeature({**pixels, "input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]})

    def _tokens(self, before: str, after: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        beginning = [] if tokenizer.bos_token_id is None or self._has_begun(before) else [tokenizer.bos_token_id]
        texts = [tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in (before, after)]
        queries = [self.model.config.image_token_id] * self.model.config.num_query_tokens
        return [*beginning, *texts[0], *queries, *texts[1]]


class InstructBlip(Blip2):
    """InstructBLIP: the prompt goes to the Q-Former too, which counts positions from the left and so pads on the right.

    Its processor pads both the language model's and the Q-Former's prompt on one side.
    """

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch."""
        inputs = super().inputs(images, prompts)
        order = inputs["qformer_attention_mask"].argsort(dim=1, descending=True, stable=True)
        for name in ("qformer_input_ids", "qformer_attention_mask"):
            inputs[name] = inputs[name].gather(1, order)
        return inputs


FAMILIES: dict[str, str] = {
    "idefics": f"{__name__}:Idefics",
    "blip": f"{__name__}:Blip",
    "blip-2": f"{__name__}:Blip2",
    "instructblip": f"{__name__}:InstructBlip",
    "qwen": "caploom.captioning.qwen_vl_v1:QwenVL",
}
"""Families that need special code: the configuration's `model_type` to "module:Class"."""


def family_class(model_type: str) -> type[Family]:
    """The family of a model's `model_type`; most are plain `Family`."""
    if model_type not in FAMILIES:
        return Family
    module, name = FAMILIES[model_type].split(":")
    found: type[Family] = getattr(import_module(module), name)
    return found


def _check_options(processor: ProcessorMixin, options: dict[str, Any]) -> None:
    """Raise `ValueError` for an option that the processor does not have, which it would silently ignore."""
    known = getattr(getattr(processor.image_processor, "valid_kwargs", None), "__annotations__", {})
    known = {*known, *inspect.signature(type(processor).__init__).parameters}
    for name in options:
        if name not in known and not hasattr(processor.image_processor, name):
            raise ValueError(f'its processor has no option "{name}"{nearest(name, sorted(known))}')


def _around_image(prompt: str) -> tuple[str, str]:
    """The prompt before and after its placeholder; without one, the image comes first."""
    before, placeholder, after = prompt.partition(IMAGE)
    return (before, after) if placeholder else ("", prompt)
