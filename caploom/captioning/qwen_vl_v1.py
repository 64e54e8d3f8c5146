"""Qwen-VL v1, which is loaded with its repository's own code and opens the images itself.

It has a tokenizer and no image processor: a prompt contains `<img>PATH</img>`, and the model's code opens PATH. That
code was written for transformers 4.31; where today's cannot run it, use a server that can (`backend: openai`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchFeature, PreTrainedTokenizerBase

from caploom.captioning.families import Family
from caploom.errors import CaptionerError

if TYPE_CHECKING:
    from PIL.Image import Image

PATH = "{path}"
"""In the prompt, stands for the file that the model opens: `<img>{path}</img>`."""

_IMAGE_BEGINS = "<img>"
_FOLDER = "image_folder"


@dataclass(frozen=True, slots=True)
class _TokenizerAlone:
    """Takes the place of other families' processor."""

    tokenizer: PreTrainedTokenizerBase

    def apply_chat_template(self, *messages: Any, **options: Any) -> str:
        raise ValueError("Qwen-VL has no chat template")


class QwenVL(Family):
    """Qwen-VL v1: the decoded images of a batch are files in a temporary folder of the batch."""

    @classmethod
    def load(cls, location: str, common: dict[str, Any], options: dict[str, Any], **weights: Any) -> "QwenVL":
        """See `Family.load`; `options` go to the tokenizer."""
        tokenizer = AutoTokenizer.from_pretrained(location, **common, **options)
        # Its weights were published only in torch's own format, which is read without running a pickle's code.
        model = AutoModelForCausalLM.from_pretrained(location, **common, **{**weights, "use_safetensors": None})
        if not model.can_generate():  # in 4.31 `PreTrainedModel` inherited it; today a model must inherit it itself
            raise RuntimeError("its model does not generate: it does not inherit GenerationMixin")
        return cls(model, tokenizer)

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.pad_token_id is None:
            # Its tokenizer has neither a padding nor an end token, only `eod_id`, which ends a document.
            tokenizer.pad_token_id = getattr(tokenizer, "eod_id", tokenizer.eos_token_id)
        super().__init__(model, _TokenizerAlone(tokenizer))

    def inputs(self, images: "Sequence[Image]", prompts: Sequence[str]) -> BatchFeature:
        """The model's inputs of a batch, for one `generate`; raises `CaptionerError` when the prompt names no file."""
        folder = TemporaryDirectory(prefix="caploom-")
        rows = []
        for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            path = Path(folder.name) / f"{number:06d}.png"
            image.save(path, compress_level=1)
            rows.append(self.processor.tokenizer(_with_path(prompt, path))["input_ids"])
        longest = max(map(len, rows))
        padding = [longest - len(row) for row in rows]
        pad = self.processor.tokenizer.pad_token_id
        ids = [[pad] * missing + row for missing, row in zip(padding, rows, strict=True)]
        mask = [[0] * missing + [1] * (longest - missing) for missing in padding]
        # The folder is deleted with the batch: a batch that is never generated leaves nothing behind.
        return BatchFeature({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), _FOLDER: folder})

    def generate(self, inputs: BatchFeature, **options: Any) -> Any:
        """What the model's `generate` returns; the files that it opens are removed."""
        with inputs.pop(_FOLDER):
            return super().generate(inputs, **options)


def _with_path(prompt: str, path: Path) -> str:
    if f"{_IMAGE_BEGINS}{PATH}</img>" not in prompt:
        raise CaptionerError(f'The prompt "{prompt}" has no {_IMAGE_BEGINS}{PATH}</img>, where Qwen-VL sees the image.')
    if prompt.count(_IMAGE_BEGINS) > 1:
        # A raw caption in the prompt must not make the model open a file of its choice.
        raise ValueError(f"the raw caption contains {_IMAGE_BEGINS}, which Qwen-VL takes for an image's path")
    return prompt.replace(PATH, str(path), 1)
