"""Exports a CLIP checkpoint to transformers' `CLIPModel`, with its processor, giving the same embeddings.

Only architectures that `CLIPModel` supports are exported: a vision transformer with a class token and a causal text
transformer. Every weight must have a counterpart, and both models must agree numerically before anything is written.
"""

from collections.abc import Iterator
from pathlib import Path

import open_clip
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.image_utils import PILImageResampling

from caploom.errors import ExportError
from caploom.training.clip_model import ClipModel, side_of

_RESAMPLING = {name.lower(): number for name, number in PILImageResampling.__members__.items()}
_AGREEMENT = 1e-4  # the features' largest difference, in float32
_SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's names and theirs


def export_to_transformers(model: ClipModel, folder: Path) -> None:
    """Write a folder that `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained` load.

    Raises `ExportError` when the architecture has no counterpart there; the message names the part.

    Example:
        export_to_transformers(load_checkpoint(Path("checkpoint")), Path("exported"))
        model = CLIPModel.from_pretrained("exported")
    """
    processor = CLIPProcessor(_image_processor(model), _tokenizer(model))
    config = _config(model)
    with torch.random.fork_rng(devices=[]):
        exported = CLIPModel(config).eval()
    weights = dict(_renamed(model.network.state_dict()))
    own = exported.state_dict()
    unplaced = [name for name in weights if name not in own]
    missing = [name for name in own if name not in weights and not name.endswith("position_ids")]
    if unplaced or missing:
        raise ExportError(_no_counterpart((unplaced or missing)[0]))
    wrong = [name for name, tensor in weights.items() if own[name].shape != tensor.shape]
    if wrong:
        raise ExportError(_no_counterpart(wrong[0]))
    exported.load_state_dict(weights, strict=False)
    _compare(model, exported)
    exported.save_pretrained(folder)
    processor.save_pretrained(folder)


def _config(model: ClipModel) -> CLIPConfig:
    architecture = model.architecture
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    if "timm_model_name" in vision or isinstance(vision.get("layers"), list | tuple):
        raise ExportError(_no_counterpart("the vision tower, which is not an open_clip vision transformer"))
    if not isinstance(model.network, open_clip.CLIP):
        raise ExportError(_no_counterpart("the text tower, which is a separate model"))
    if model.network.attn_mask is None or model.network.text_pool_type != "argmax":
        raise ExportError(_no_counterpart("the text tower, which is not causal or does not end in its last token"))
    activation = "quick_gelu" if architecture.get("quick_gelu") else "gelu"
    end = text["vocab_size"] - 1
    width, text_width = vision.get("width", 768), text.get("width", 512)
    return CLIPConfig(
        projection_dim=architecture["embed_dim"],
        text_config={
            "vocab_size": text["vocab_size"],
            "hidden_size": text_width,
            "intermediate_size": int(text_width * text.get("mlp_ratio", 4.0)),
            "num_hidden_layers": text.get("layers", 12),
            "num_attention_heads": text.get("heads", 8),
            "max_position_embeddings": text.get("context_length", 77),
            "hidden_act": activation,
            "projection_dim": architecture["embed_dim"],
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={
            "image_size": side_of(model.preprocessing),
            "patch_size": vision.get("patch_size", 16),
            "hidden_size": width,
            "intermediate_size": int(width * vision.get("mlp_ratio", 4.0)),
            "num_hidden_layers": vision.get("layers", 12),
            "num_attention_heads": width // vision.get("head_width", 64),
            "hidden_act": activation,
            "projection_dim": architecture["embed_dim"],
        },
    )


def _renamed(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """open_clip's weights by transformers' names; unmapped ones keep their own names, which the caller reports."""
    for name, tensor in state.items():
        if name == "logit_bias":
            continue  # it affects scores and no embedding
        if name.startswith("visual."):
            yield from _of_tower(name.removeprefix("visual."), tensor, "vision_model", "visual_projection")
        else:
            yield from _of_tower(name, tensor, "text_model", "text_projection")


_TARGETS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",  # transformers' own spelling
    "ln_post": "post_layernorm",
    "ln_final": "final_layer_norm",
}
_LAYER_PLACES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def _of_tower(name: str, tensor: torch.Tensor, tower: str, projection: str) -> Iterator[tuple[str, torch.Tensor]]:
    if name == "logit_scale":
        yield name, tensor
    elif name in ("proj", "text_projection"):
        yield f"{projection}.weight", tensor.T.contiguous()
    elif name in ("text_projection.weight", "proj.weight"):
        yield f"{projection}.weight", tensor
    elif name.startswith("transformer.resblocks."):
        number, _, part = name.removeprefix("transformer.resblocks.").partition(".")
        yield from _of_layer(part, tensor, f"{tower}.encoder.layers.{number}")
    else:
        stem, _, kind = name.rpartition(".")
        target = _TARGETS.get(name) or (f"{_TARGETS[stem]}.{kind}" if stem in _TARGETS else f"{tower}: {name}")
        yield f"{tower}.{target}", tensor


def _of_layer(part: str, tensor: torch.Tensor, layer: str) -> Iterator[tuple[str, torch.Tensor]]:
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = part.removeprefix("attn.in_proj_")
        for name, third in zip(("q", "k", "v"), tensor.chunk(3), strict=True):
            yield f"{layer}.self_attn.{name}_proj.{kind}", third.contiguous()
        return
    stem, _, kind = part.rpartition(".")
    yield (f"{layer}.{_LAYER_PLACES[stem]}.{kind}" if stem in _LAYER_PLACES else f"{layer}: {part}"), tensor


def _compare(model: ClipModel, exported: CLIPModel) -> None:
    """Both models must give the same features: this finds options that no weight shows."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, side_of(model.preprocessing), side_of(model.preprocessing), generator=generator)
    tokens = model.tokenize(["a red ball", "two green boats on a long river"])
    network = model.network.eval()
    with torch.inference_mode():
        pairs = (
            (network.encode_image(images), exported.get_image_features(pixel_values=images)),
            (network.encode_text(tokens), exported.get_text_features(input_ids=tokens)),
        )
        for what, (here, there) in zip(("images", "texts"), pairs, strict=True):
            features = there if isinstance(there, torch.Tensor) else there.pooler_output
            difference = float((here - features).abs().max())
            if not difference < _AGREEMENT * max(1.0, float(here.abs().max())):
                raise ExportError(
                    _no_counterpart(f"something of the tower of {what} (features differ by {difference:.2g})")
                )


def _no_counterpart(part: str) -> str:
    return (
        f"transformers' CLIPModel has no counterpart of {part} of this architecture; export a vision transformer with "
        "a class token and a causal text transformer, or load the checkpoint with open_clip."
    )


def _image_processor(model: ClipModel) -> CLIPImageProcessor:
    preprocessing = model.preprocessing
    if preprocessing.interpolation not in _RESAMPLING or preprocessing.resize_mode not in (None, "shortest", "squash"):
        what = f"{preprocessing.interpolation}, {preprocessing.resize_mode}"
        raise ExportError(_no_counterpart(f"the way images are resized ({what})"))
    side, squash = side_of(model.preprocessing), preprocessing.resize_mode == "squash"
    return CLIPImageProcessor(
        resample=_RESAMPLING[preprocessing.interpolation],
        size={"height": side, "width": side} if squash else {"shortest_edge": side},
        do_center_crop=not squash,
        crop_size={"height": side, "width": side},
        image_mean=list(model.preprocessing.mean),
        image_std=list(model.preprocessing.std),
    )


def _tokenizer(model: ClipModel) -> CLIPTokenizer:
    own = open_clip.SimpleTokenizer()
    text = model.architecture["text_cfg"]
    if "hf_tokenizer_name" in text or "hf_model_name" in text or text.get("tokenizer_kwargs"):
        raise ExportError(_no_counterpart("the tokenizer, which is not open_clip's own,"))
    if text["vocab_size"] != len(own.encoder):
        raise ExportError(_no_counterpart("the vocabulary"))
    merges = sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    length = model.architecture["text_cfg"].get("context_length", 77)
    # It pads with the end of text, open_clip with 0, which is "!" there: neither model reads past a text's end.
    vocabulary = {_SPECIAL.get(token, token): number for token, number in own.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
