"""Captions with any image-text-to-text model of transformers, in this process.

One code path for all sizes: the demo's tiny captioners and LLaVA-1.5-7B load and run through the same lines.
"""

import copy
import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, BatchFeature, LogitsProcessorList, StoppingCriteriaList
from transformers.utils import logging as transformers_logging

from caploom.captioning.backend import Backend, CanaryRow, Chunk, Generation, ImageRef
from caploom.captioning.canary import compare_batched_with_single
from caploom.captioning.engine import BatchEngine
from caploom.captioning.families import Family, family_class
from caploom.captioning.identity import model_location
from caploom.captioning.sampling import GumbelSampler
from caploom.captioning.settings import TransformersCaptioner
from caploom.captioning.stop_criterion import PerRowStopping, tokens_that_may_settle
from caploom.captioning.stopping import can_settle
from caploom.common.text import first_line
from caploom.errors import CaptionerError
from caploom.storage.store import Store

if TYPE_CHECKING:
    from PIL.Image import Image

_PIXELS_PER_TOKEN = 28 * 28


def open_transformers(settings: TransformersCaptioner, store: Store) -> Backend:
    """The model on its device, or one worker per device when there are several."""
    devices = _devices(settings)
    _check_devices(settings, devices)
    if len(devices) == 1:
        return TransformersBackend(settings, store, device=devices[0])
    from caploom.captioning.workers import WorkerPool

    return WorkerPool(settings, devices, _on_device)


def _on_device(settings: TransformersCaptioner, device: str) -> Backend:
    return TransformersBackend(settings, device=device)


@dataclass
class Prepared:
    """The inputs of a batch and their images."""

    inputs: BatchFeature
    image_ids: list[str]


class TransformersBackend:
    """Batches, greedy or reproducibly sampled; see `Backend`, and `BatchModel` for what the engine calls."""

    def __init__(
        self,
        settings: TransformersCaptioner,
        store: Store | None = None,
        *,
        device: str | None = None,
        family: type[Family] | None = None,
    ) -> None:
        self._settings = settings
        self.device = device or _devices(settings)[0]
        location = model_location(settings)
        _check_folder(location)
        _check_memory(settings, self.device)
        transformers_logging.disable_progress_bar()  # its bar per weight would interrupt the stage's own
        self._family = _load(settings, location, family, self.device)
        self._model = self._family.model
        # Two threads must not use one fast tokenizer: batches are prepared with the family's.
        self._tokenizer = copy.deepcopy(self._family.processor.tokenizer)
        self._end_tokens = self._family.end_tokens()
        self._stops = settings.stops if can_settle(settings.stops) else ()
        self._may_settle = tokens_that_may_settle(self._tokenizer, self._stops, settings.decoding.stop_strings)
        self._prompt = self._render_prompt()
        self._lengths_differ = settings.needs_raw_caption or self._image_size_matters()
        self._engine = BatchEngine(self, settings.batch_size, settings.prefetch)

    @property
    def facts(self) -> dict[str, Any]:
        """The hub's commit, the dtype, and the batch size that fitted."""
        return {
            "commit": getattr(self._model.config, "_commit_hash", None),
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self._engine.batch_size,
        }

    def caption(self, refs: Iterable[ImageRef]) -> Generator[Chunk, None, None]:
        """See `Backend.caption`."""
        return self._engine.caption(refs)

    def canary(self, refs: Sequence[ImageRef]) -> list[CanaryRow]:
        """See `Backend.canary`."""
        return compare_batched_with_single(self, refs)

    def close(self) -> None:
        """Release the weights and the GPU's memory."""
        del self._model, self._family, self._engine
        self.free_memory()

    def free_memory(self) -> None:
        """Return torch's cached memory to the GPU."""
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def length(self, ref: ImageRef) -> float:
        """See `BatchModel.length`: the prompt's characters and, where it matters, the image's pixels."""
        if not self._lengths_differ:
            return 0.0
        return ref.width * ref.height / _PIXELS_PER_TOKEN + len(ref.prompted(self._prompt)) / 4

    def prepare(self, images: "Sequence[Image]", refs: Sequence[ImageRef]) -> Prepared:
        """See `BatchModel.prepare`."""
        inputs = self._family.inputs(images, [ref.prompted(self._prompt) for ref in refs])
        return Prepared(inputs, [ref.image_id for ref in refs])

    def generate(self, prepared: Prepared) -> list[Generation]:
        """See `BatchModel.generate`."""
        decoding = self._settings.decoding
        processors = LogitsProcessorList()
        if decoding.sample:
            sampler = GumbelSampler(prepared.image_ids, self._settings.seed, decoding.temperature, decoding.top_p)
            processors.append(sampler)
        end = PerRowStopping(self._tokenizer, self._end_tokens, self._stops, decoding.stop_strings, self._may_settle)
        criteria = StoppingCriteriaList([end] if end.watches else [])
        tokens, _ = self._run(prepared, processors, criteria, num_beams=decoding.num_beams)
        return end.read(tokens)

    def greedy(self, prepared: Prepared) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """New tokens, shape (batch, new), and each step's scores, shapes (batch, vocabulary), without any stop."""
        return self._run(prepared, LogitsProcessorList(), StoppingCriteriaList(), num_beams=1)

    def text(self, tokens: torch.Tensor) -> str:
        """The text of new tokens, shape (new,)."""
        decoded: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return decoded.strip()

    @property
    def end_tokens(self) -> list[int]:
        """Tokens that end a text."""
        return self._end_tokens

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights that generate the text: others may be float32, such as BLIP-2's Q-Former."""
        dtype: torch.dtype = self._family.text_model.dtype
        return dtype

    @property
    def precision(self) -> float:
        """The smallest relative difference that it can represent: the dtype's, or that of the quantization."""
        computed = {"none": self.dtype, "8bit": torch.int8, "4bit": torch.bfloat16}[self._settings.quantization]
        return 1 / torch.iinfo(computed).max if computed is torch.int8 else torch.finfo(computed).eps

    @torch.inference_mode()
    def _run(
        self, prepared: Prepared, processors: LogitsProcessorList, criteria: StoppingCriteriaList, *, num_beams: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        decoding = self._settings.decoding
        inputs = prepared.inputs.to(self._model.device, dtype=self._model.dtype)
        output = self._family.generate(
            inputs,
            # Sampling is arg-max over logits + Gumbel noise: exact, and independent of the batch.
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            logits_processor=processors,
            stopping_criteria=criteria,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens or None,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            repetition_penalty=decoding.repetition_penalty,
            num_beams=num_beams,
            length_penalty=decoding.length_penalty if num_beams > 1 else None,
            pad_token_id=self._tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_scores=num_beams == 1 and not criteria and not processors,
        )
        return self._family.new_tokens(output.sequences, inputs), list(output.get("scores") or [])

    def _render_prompt(self) -> str:
        if not self._settings.chat_template:
            return self._settings.prompt
        message: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": self._settings.prompt}]}
        ]
        try:
            rendered: str = self._family.processor.apply_chat_template(
                message, add_generation_prompt=True, tokenize=False
            )
        except ValueError:
            raise CaptionerError(
                f"{self._settings.model}: chat_template is true and the model has no chat template; "
                "write the raw prompt with the image placeholder and leave chat_template out."
            ) from None
        return rendered

    def _image_size_matters(self) -> bool:
        """Whether prompts of larger images are longer, as Qwen-VL's and InternVL's are."""
        from PIL import Image

        small, large = (
            self.prepare([Image.new("RGB", (side, side))], [ImageRef("", "", "")]).inputs["input_ids"].shape[1]
            for side in (112, 896)
        )
        return bool(small != large)


def _load(settings: TransformersCaptioner, location: str, family: type[Family] | None, device: str) -> Family:
    common: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
    weights: dict[str, Any] = {"dtype": settings.dtype, "use_safetensors": True}
    if settings.attention != "auto":
        weights["attn_implementation"] = settings.attention
    if settings.quantization != "none":
        weights["quantization_config"] = _quantization(settings)
    placed = settings.device_map != "none" or settings.quantization != "none"
    if placed:
        weights["device_map"] = settings.device_map if settings.device_map != "none" else {"": device}
    try:
        config = AutoConfig.from_pretrained(location, **common)
        kind = family or family_class(config.model_type)
        loaded = kind.load(location, common, settings.processor, config=config, **weights)
    except (OSError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        if not settings.trust_remote_code and "trust_remote_code=True" in str(error):
            raise CaptionerError(
                f"{settings.model}: it comes with code of its own, which is not run unless you request it; read that "
                "code, then write trust_remote_code: true and the revision that you read, or serve it and use backend: "
                "openai."
            ) from None
        if isinstance(error, ImportError) and "num2words" in str(error):
            raise CaptionerError(
                f"{settings.model}: SmolVLM's processor needs num2words; install it with "
                "pip install 'caploom[smolvlm]'."
            ) from None
        raise CaptionerError(f"{settings.model}: the model does not load ({first_line(error)}).") from error
    except (AttributeError, NameError, RuntimeError, AssertionError) as error:
        if settings.trust_remote_code:
            raise CaptionerError(
                f"{settings.model}: its own code does not run with this version of transformers "
                f"({first_line(error)}); serve it with the version that it was written for and use backend: openai."
            ) from error
        if not isinstance(error, AttributeError) or "tokenizer" not in str(error):
            raise
        raise CaptionerError(
            f"{settings.model}: it has a tokenizer but no image processor, so it cannot see images."
        ) from error
    if not placed:
        loaded.model.to(device)
    loaded.model.eval()
    return loaded


def _quantization(settings: TransformersCaptioner) -> Any:
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise CaptionerError(
            f"{settings.model}: quantization {settings.quantization} needs bitsandbytes; install it with "
            "pip install 'caploom[quantization]'."
        )
    if settings.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)


def _devices(settings: TransformersCaptioner) -> list[str]:
    if isinstance(settings.device, list):
        return settings.device
    if settings.device != "auto":
        return [settings.device]
    if settings.device_map != "none" or not torch.cuda.is_available():
        return ["cuda" if torch.cuda.is_available() else "cpu"]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _check_devices(settings: TransformersCaptioner, devices: Sequence[str]) -> None:
    """Raise before minutes of loading when a device is a GPU and there is none."""
    wanted = [device for device in devices if device.startswith("cuda")]
    if wanted and not torch.cuda.is_available():
        raise CaptionerError(
            f"{settings.model}: its device is {', '.join(wanted)}, and torch finds no GPU on this machine; run it on "
            "one that has a GPU, or set device: cpu."
        )


def _check_memory(settings: TransformersCaptioner, device: str) -> None:
    """Raise before minutes of loading when the model does not fit on the GPU."""
    if settings.memory_gb is None or not device.startswith("cuda") or settings.device_map != "none":
        return
    free = torch.cuda.mem_get_info(device)[0] / 1e9
    if free < settings.memory_gb:
        raise CaptionerError(
            f"{settings.model}: it needs about {settings.memory_gb:g} GB and {device} has {free:.1f} GB free; free the "
            "GPU, choose a smaller captioner, lower batch_size and memory_gb, or set quantization: 4bit."
        )


def _check_folder(location: str) -> None:
    """Raise with what a local model folder lacks (a hub id is left to the hub's own errors)."""
    folder = Path(location)
    if not folder.is_absolute():
        return
    if not folder.is_dir():
        raise CaptionerError(f"{folder}: there is no such model folder; correct the captioner's `model`.")
    if _brings_code(folder):
        return  # its own code decides what it needs
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


def _brings_code(folder: Path) -> bool:
    try:
        return "auto_map" in json.loads((folder / "config.json").read_bytes())
    except (FileNotFoundError, ValueError, TypeError):
        return False  # the following checks and the loading report its faults
