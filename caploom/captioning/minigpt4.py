"""MiniGPT-4 as a model folder that transformers loads, made from the checkpoint files that its authors published.

MiniGPT-4 is BLIP-2's vision transformer and Q-Former, one linear projection, and Vicuna. transformers has no port of
it, but `Blip2ForConditionalGeneration` with LLaMA as its language model is that very architecture. One thing differs:
the layer norm after the vision transformer adds 1e-6 to the variance, as in all BLIP-2 models of transformers, where
the original adds 1e-5.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from caploom.captioning.minigpt4_weights import Checkpoint, qformer_sizes, qformer_weights, vision_sizes, vision_weights
from caploom.common.text import first_line
from caploom.errors import CaptionerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import Blip2ForConditionalGeneration, PreTrainedTokenizerBase

IMAGE_TOKEN = "<image>"

DType = Literal["float16", "bfloat16", "float32"]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MiniGPT4Files:
    """The paths of the published parts: three checkpoint files, and Vicuna's folder in Hugging Face's format."""

    vit: Path
    qformer: Path
    projection: Path
    vicuna: Path


def convert_minigpt4(
    files: MiniGPT4Files, out: Path, *, dtype: DType = "float16", say: Say = lambda step: None
) -> None:
    """Write the model folder `out`, completely or not at all; `say` is called with each step.

    `dtype` is that of the weights; the Q-Former keeps float32, in which it is published and in which transformers runs
    it. Raises `CaptionerError` when a file is missing, is the wrong one, or they do not belong together, and when
    `out` is not empty.
    """
    from transformers.utils import logging

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CaptionerError(f"{out}: it exists and is not an empty folder; name another folder for the model.")
    text_config, tokenizer = _open_vicuna(files.vicuna)
    logging.disable_progress_bar()  # its bar per weight would interrupt the lines of the steps
    parts = _Parts(files, getattr(torch, dtype), say)
    model = parts.vision_and_qformer(text_config)
    parts.projection(model)
    parts.vicuna(model, tokenizer)
    say(f"writing {out}")
    with _whole_folder(out) as folder:
        _save(model, tokenizer, folder, dtype)


class _Parts:
    """The model, whose parts are filled in with one checkpoint in memory at a time."""

    def __init__(self, files: MiniGPT4Files, dtype: torch.dtype, say: Say) -> None:
        self._files, self._dtype, self._say = files, dtype, say

    def vision_and_qformer(self, text_config: Any) -> "Blip2ForConditionalGeneration":
        from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2QFormerConfig, Blip2VisionConfig

        self._say(f"reading BLIP-2's Q-Former from {self._files.qformer}")
        qformer = Checkpoint(self._files.qformer, "BLIP-2's Q-Former")
        self._say(f"reading the vision transformer from {self._files.vit}")
        vit = Checkpoint(self._files.vit, "EVA ViT-g")
        config = Blip2Config(
            vision_config=Blip2VisionConfig(**vision_sizes(vit)).to_dict(),
            qformer_config=Blip2QFormerConfig(**qformer_sizes(qformer)).to_dict(),
            text_config=text_config.to_dict(),
            num_query_tokens=qformer.take("query_tokens").shape[1],
        )
        with torch.device("meta"):  # names and shapes; no memory
            model = Blip2ForConditionalGeneration(config)
        width = config.vision_config.hidden_size
        cross = "Qformer.bert.encoder.layer.0.crossattention.self.key.weight"
        qformer.take(cross, (config.qformer_config.hidden_size, width))
        _fill(model.vision_model, vision_weights(vit, qformer, _shapes(model.vision_model)), self._dtype)
        _fill(model.qformer, qformer_weights(qformer, _shapes(model.qformer)), torch.float32)
        queries = qformer.take("query_tokens", model.query_tokens.shape)
        model.query_tokens = torch.nn.Parameter(queries.to(torch.float32), requires_grad=False)
        for checkpoint in (vit, qformer):
            self._say(f"not used of {checkpoint.path.name}: {_summary(checkpoint.untaken())}")
        return model

    def projection(self, model: "Blip2ForConditionalGeneration") -> None:
        self._say(f"reading the projection from {self._files.projection}")
        checkpoint = Checkpoint(self._files.projection, "MiniGPT-4's projection")
        into, outof = checkpoint.take("llama_proj.weight").shape[-2:]
        needed, given = model.config.text_config.hidden_size, model.config.qformer_config.hidden_size
        if outof == 4 * model.config.vision_config.hidden_size:
            raise CaptionerError(
                f"{checkpoint.path}: it is a projection of MiniGPT-4 without Q-Former (its LLaMA-2 and v2 variants), "
                "which is another architecture; give the checkpoint for Vicuna."
            )
        if (into, outof) != (needed, given):
            raise CaptionerError(
                f"{checkpoint.path}: its projection goes from {outof} to {into}, and the Q-Former gives {given} and "
                f"the Vicuna in {self._files.vicuna} takes {needed}; give files that belong together (of one size)."
            )
        _fill(
            model.language_projection,
            {"weight": checkpoint.take("llama_proj.weight"), "bias": checkpoint.take("llama_proj.bias", (needed,))},
            self._dtype,
        )
        if checkpoint.untaken():
            raise CaptionerError(
                f"{checkpoint.path}: it also has {_summary(checkpoint.untaken())}, which MiniGPT-4 for Vicuna does "
                "not have; give its published checkpoint."
            )

    def vicuna(self, model: "Blip2ForConditionalGeneration", tokenizer: "PreTrainedTokenizerBase") -> None:
        from safetensors import SafetensorError
        from transformers import LlamaForCausalLM

        folder = self._files.vicuna
        self._say(f"reading Vicuna from {folder}")
        try:
            language_model, report = LlamaForCausalLM.from_pretrained(
                folder, dtype=self._dtype, local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CaptionerError(f"{folder}: its weights do not load ({first_line(error).rstrip('.')}).") from error
        if report["missing_keys"]:
            raise CaptionerError(
                f"{folder}: its weights lack {_summary(sorted(report['missing_keys']))}; download Vicuna again, or "
                "apply its delta to LLaMA."
            )
        model.language_model = language_model
        _teach_image_token(model, tokenizer)


def _teach_image_token(model: "Blip2ForConditionalGeneration", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Make room for `<image>`: in the input the image's features replace it, and the output never contains it."""
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    known = model.config.text_config.vocab_size
    if len(tokenizer) > known:
        language_model = model.language_model
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            language_model.get_input_embeddings().weight[known:] = 0
            # A head's row of zeros would score 0, which is not low for LLaMA. It has learnt never to generate `<unk>`.
            head = language_model.get_output_embeddings().weight
            head[known:] = head[tokenizer.unk_token_id or 0]
        model.config.text_config.vocab_size = len(tokenizer)
    model.config.image_token_index = image


def _save(
    model: "Blip2ForConditionalGeneration", tokenizer: "PreTrainedTokenizerBase", folder: Path, dtype: DType
) -> None:
    from transformers import Blip2Processor, BlipImageProcessor, GenerationConfig

    side = model.config.vision_config.image_size
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": side, "width": side}),
        tokenizer,
        num_query_tokens=model.config.num_query_tokens,
    )
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    for name, value in ends.items():
        setattr(model.config.text_config, name, value)
    model.generation_config = GenerationConfig(**ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder, max_shard_size="4GB")
    # transformers writes the dtype of the first weight, which is the Q-Former's.
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)


def _open_vicuna(folder: Path) -> "tuple[Any, PreTrainedTokenizerBase]":
    """The LLaMA configuration and the tokenizer of Vicuna's folder."""
    from transformers import AutoConfig, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise CaptionerError(
            f"{folder}: it has no config.json, so it is not a model in Hugging Face's format; give Vicuna's folder."
        )
    _check_sentencepiece(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        # `legacy`, now and in the folder: as in the original, the text after the image is tokenized as if a text began
        # there ("▁</Img>", not "</Img>").
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, legacy=True, add_bos_token=True)
        tokenizer.init_kwargs["legacy"] = True
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise CaptionerError(
            f"{folder}: Vicuna's configuration or tokenizer does not load ({first_line(error).rstrip('.')})."
        ) from error
    if config.model_type != "llama":
        raise CaptionerError(f"{folder}: it is a {config.model_type} model; MiniGPT-4 needs Vicuna, a llama model.")
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise CaptionerError(f"{folder}: its tokenizer has no start or end token; use Vicuna's tokenizer files.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # as the original does
    return config, tokenizer


def _check_sentencepiece(folder: Path) -> None:
    """Vicuna's tokenizer is published as `tokenizer.model`, which is read with sentencepiece."""
    if (folder / "tokenizer.json").is_file() or not (folder / "tokenizer.model").is_file():
        return
    try:
        import_module("sentencepiece.sentencepiece_model_pb2")
    # Where sentencepiece is too new for the installed protobuf, protobuf raises an error of its own.
    except Exception as error:
        raise CaptionerError(
            f"{folder}: its tokenizer.model needs sentencepiece ({first_line(error).rstrip('.')}); install it with "
            "pip install 'caploom[minigpt4]'."
        ) from error


@contextmanager
def _whole_folder(out: Path) -> "Iterator[Path]":
    """A folder to write to that becomes `out` when everything is written, and is deleted when something fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp's folder is readable by its owner alone
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    module.load_state_dict({name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}, assign=True)


def _summary(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"
