"""Captions with any image-text-to-text model of transformers, in this process.

One path for all sizes: the demo's tiny captioners and LLaVA-1.5-7B load and run through the same lines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList
from transformers.utils import logging as transformers_logging

from caploom.captioning.backend import Generation
from caploom.captioning.identity import model_location
from caploom.captioning.sampling import GumbelSampler
from caploom.captioning.settings import CaptionerSettings
from caploom.errors import CaptionerError

if TYPE_CHECKING:
    from PIL.Image import Image


class TransformersBackend:
    """`AutoProcessor` and `AutoModelForImageTextToText`, left-padded batches, greedy or reproducibly sampled."""

    def __init__(self, settings: CaptionerSettings) -> None:
        self._settings = settings
        location = model_location(settings)
        _check_folder(location)
        self.device = _device(settings.device)
        transformers_logging.disable_progress_bar()  # its bar for each weight would interrupt the stage's own
        common = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        try:
            self._processor = AutoProcessor.from_pretrained(location, **common)
            self._model = AutoModelForImageTextToText.from_pretrained(
                location, dtype=settings.dtype, use_safetensors=True, **common
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CaptionerError(f"{settings.model}: the model does not load ({reason}).") from error
        if not hasattr(self._processor, "tokenizer"):
            raise CaptionerError(
                f"{settings.model}: it has a tokenizer but no image processor, so it cannot see images."
            )
        self._model.to(self.device).eval()
        # Decoder-only models go on from the last position of the prompt: padding must stand before it.
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._prompt = self._render_prompt()

    @torch.inference_mode()
    def caption(self, images: Sequence["Image"], image_ids: Sequence[str]) -> list[Generation]:
        """See `Backend.caption`."""
        # A flat list, one image a prompt: given a list of lists, some processors put the image after the text.
        inputs = self._processor(
            images=list(images), text=[self._prompt] * len(images), padding=True, return_tensors="pt"
        ).to(self.device, dtype=self._model.dtype)
        decoding = self._settings.decoding
        processors = LogitsProcessorList()
        if decoding.sample:
            processors.append(GumbelSampler(image_ids, self._settings.seed, decoding.temperature, decoding.top_p))
        output = self._model.generate(
            **inputs,
            # Sampling is arg-max over logits + Gumbel noise: exact, and the same whatever the batch.
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=processors,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens or None,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            pad_token_id=self._processor.tokenizer.pad_token_id,
        )
        return self._read(output[:, inputs["input_ids"].shape[1] :])

    def _read(self, new_tokens: "torch.Tensor") -> list[Generation]:
        texts = self._processor.batch_decode(new_tokens, skip_special_tokens=True)
        ends = self._model.generation_config.eos_token_id
        end_ids = torch.tensor(ends if isinstance(ends, list) else [ends], device=new_tokens.device)
        ended = torch.isin(new_tokens, end_ids)
        generations = []
        for text, row in zip(texts, ended, strict=True):
            stop = int(row.int().argmax()) if bool(row.any()) else None
            tokens = row.shape[0] if stop is None else stop
            generations.append(Generation(text.strip(), tokens, "length" if stop is None else "stop"))
        return generations

    def _render_prompt(self) -> str:
        if not self._settings.chat_template:
            return self._settings.prompt
        message: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": self._settings.prompt}]}
        ]
        try:
            rendered: str = self._processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        except ValueError:
            raise CaptionerError(
                f"{self._settings.model}: chat_template is true and the model has no chat template; "
                "write the raw prompt with the image placeholder and leave chat_template out."
            ) from None
        return rendered


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_folder(location: str) -> None:
    """Say plainly what a local model folder lacks (a hub id is left to the hub's own errors)."""
    folder = Path(location)
    if not folder.is_absolute():
        return
    if not folder.is_dir():
        raise CaptionerError(f"{folder}: there is no such model folder; correct the captioner's `model`.")
    needed = {
        "configuration": ("config.json",),
        "weights in safetensors": ("*.safetensors",),
        "image processor": ("processor_config.json", "preprocessor_config.json"),
        "tokenizer": ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json"),
    }
    for what, patterns in needed.items():
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise CaptionerError(
                f"{folder}: the model folder has no {what} ({' or '.join(patterns)}); "
                "save it there with processor.save_pretrained and model.save_pretrained."
            )
