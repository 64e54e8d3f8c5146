"""MiniGPT-4's published checkpoint files as the weights of transformers' BLIP-2: sizes, names, shapes.

The files and the names in them are those of LAVIS and MiniGPT-4. Their shapes give every size except these, which all
published files share: heads of the vision transformer are 88 wide and those of the Q-Former 64, every second layer of
the Q-Former attends to the image, and the vision transformer's last block is not used (BLIP-2 reads its input).
"""

import pickle
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from caploom.common.text import first_line
from caploom.errors import CaptionerError

VISION_HEAD_WIDTH = 88
QFORMER_HEAD_WIDTH = 64

_VISION_NAMES = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "encoder.layers": "blocks",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.projection": "attn.proj",
    "self_attn.qkv": "attn.qkv",
}


class Checkpoint:
    """The tensors of one checkpoint file, each taken by its name in the file.

    `holds` names the expected content for people ("EVA ViT-g weights"). Raises `CaptionerError` when there is no such
    file, or it is not a `torch.save` file of tensors alone: nothing else is ever unpickled.
    """

    def __init__(self, path: Path, holds: str) -> None:
        self.path = path
        self.holds = holds
        self._tensors = _read(path, holds)
        self._taken: set[str] = set()

    def take(self, name: str, shape: Iterable[int] | None = None) -> Tensor:
        """A tensor, which must have that shape; raises `CaptionerError` naming it when it is missing or another."""
        if name not in self._tensors:
            raise CaptionerError(
                f"{self.path}: it has no tensor {name}, so it does not contain {self.holds}; give the published file."
            )
        tensor = self._tensors[name]
        if shape is not None and tuple(tensor.shape) != tuple(shape):
            raise CaptionerError(
                f"{self.path}: its tensor {name} has the shape {_by(tensor.shape)} where {_by(shape)} is needed; give "
                "files that belong together."
            )
        self._taken.add(name)
        return tensor

    def numbered(self, pattern: str) -> int:
        """The number of layers: one more than the highest number that the pattern's group finds in a name."""
        return 1 + max(int(match[1]) for name in self._tensors if (match := re.match(pattern, name)))

    def untaken(self) -> list[str]:
        """Names of the tensors that nothing took."""
        return [name for name in self._tensors if name not in self._taken]


def vision_sizes(vit: Checkpoint) -> dict[str, int]:
    """Arguments of `Blip2VisionConfig`, read from the shapes of EVA ViT-g's checkpoint."""
    width, _, patch, _ = _of_dimensions(vit, "patch_embed.proj.weight", 4)
    positions = _of_dimensions(vit, "pos_embed", 3)[1]
    side = round((positions - 1) ** 0.5)
    if side * side != positions - 1:
        raise CaptionerError(
            f"{vit.path}: its tensor pos_embed has {positions} positions, which is not a square of patches plus one; "
            "give the published file."
        )
    return {
        "hidden_size": width,
        "intermediate_size": _of_dimensions(vit, "blocks.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": vit.numbered(r"blocks\.(\d+)\.") - 1,
        "num_attention_heads": _heads(vit, width, VISION_HEAD_WIDTH),
        "image_size": side * patch,
        "patch_size": patch,
    }


def qformer_sizes(qformer: Checkpoint) -> dict[str, int]:
    """Arguments of `Blip2QFormerConfig`, read from the shapes of BLIP-2's checkpoint."""
    width = _of_dimensions(qformer, "query_tokens", 3)[2]
    first = "Qformer.bert.encoder.layer.0."
    return {
        "hidden_size": width,
        "intermediate_size": _of_dimensions(qformer, f"{first}intermediate_query.dense.weight", 2)[0],
        "num_hidden_layers": qformer.numbered(r"Qformer\.bert\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": _heads(qformer, width, QFORMER_HEAD_WIDTH),
        "encoder_hidden_size": _of_dimensions(qformer, f"{first}crossattention.self.key.weight", 2)[1],
        "cross_attention_frequency": 2,
    }


def vision_weights(vit: Checkpoint, qformer: Checkpoint, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Weights of `Blip2VisionModel`, whose names and shapes are given; BLIP-2's checkpoint has its last layer norm."""
    weights = {}
    for name, shape in shapes.items():
        if name.startswith("post_layernorm."):
            weights[name] = qformer.take(name.replace("post_layernorm", "ln_vision"), shape)
        elif name.endswith("self_attn.qkv.bias"):
            # The file has biases of queries and values alone: keys have none, and here one of zeros.
            block = _vision_name(name).removesuffix("qkv.bias")
            third = (shape[0] // 3,)
            query, value = (vit.take(f"{block}{each}_bias", third) for each in "qv")
            weights[name] = torch.cat([query, torch.zeros_like(query), value])
        else:
            weights[name] = vit.take(_vision_name(name), shape)
    return weights


def qformer_weights(qformer: Checkpoint, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Weights of `Blip2QFormerModel`, whose names and shapes are given."""
    return {name: qformer.take(_qformer_name(name), shape) for name, shape in shapes.items()}


def _vision_name(name: str) -> str:
    for ours, theirs in _VISION_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _qformer_name(name: str) -> str:
    if name.startswith("layernorm."):
        return f"Qformer.bert.embeddings.{name.replace('layernorm', 'LayerNorm')}"
    return f"Qformer.bert.{name.replace('attention.attention.', 'attention.self.')}"


def _read(path: Path, holds: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise CaptionerError(f"{path}: there is no such file; give the file with {holds}.")
    try:
        # Only tensors and plain values: a downloaded pickle could otherwise run any code.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = first_line(error).rstrip(".")
        raise CaptionerError(
            f"{path}: it is not a torch checkpoint of tensors alone ({reason}); give the file with {holds}."
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CaptionerError(f"{path}: it is not a mapping of names to tensors; give the file with {holds}.")
    return loaded


def _of_dimensions(checkpoint: Checkpoint, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(checkpoint.take(name).shape)
    if len(shape) != dimensions:
        raise CaptionerError(
            f"{checkpoint.path}: its tensor {name} has {len(shape)} dimensions where {dimensions} are needed; give the "
            "published file."
        )
    return shape


def _heads(checkpoint: Checkpoint, width: int, head_width: int) -> int:
    if width % head_width:
        raise CaptionerError(
            f"{checkpoint.path}: its width {width} is not a multiple of {head_width}, the width of a head of the model "
            f"that {checkpoint.holds} belong to; give the published file."
        )
    return width // head_width


def _by(shape: Iterable[int]) -> str:
    return " x ".join(str(size) for size in shape)
