"""CLIP models of open_clip: made from an architecture's name or file, written to a checkpoint folder, and loaded again.

A checkpoint folder contains `model.safetensors` and `open_clip_config.json` in open_clip's own layout, so open_clip
loads it too: `open_clip.create_model_and_transforms("local-dir:FOLDER")`.
"""

import copy
import difflib
import functools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from open_clip.transformer import text_global_pool
from safetensors.torch import save_file

from caploom.common.text import first_line
from caploom.errors import StoreError, TrainingError

ARCHITECTURES = Path(__file__).parent / "architectures"
"""Caploom's own architectures: JSON files in open_clip's format, named by their stem."""

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "open_clip_config.json"

Network: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
Tokenize: TypeAlias = Callable[[list[str]], torch.Tensor]

_SIGLIP_START = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}
_REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class ClipModel:
    """A CLIP network with everything needed to use it.

    Attributes:
        network: open_clip's `CLIP` or `CustomTextCLIP`.
        architecture: its configuration in open_clip's format.
        preprocessing: size, resampling, mean and standard deviation of the images that it takes.
        tokenize: a list of N texts -> int64 token ids of shape (N, context length); longer texts are cut.
    """

    network: Network
    architecture: dict[str, Any]
    preprocessing: PreprocessCfg
    tokenize: Tokenize


def read_architecture(model: str) -> dict[str, Any]:
    """The open_clip configuration that `model` names: an open_clip name, one of Caploom's own, or a JSON file's path.

    Raises `TrainingError` when there is none of that name, or the file is not an architecture.
    """
    if model.endswith(".json"):
        return _read_architecture_file(Path(model))
    own = ARCHITECTURES / f"{model}.json"
    if own.name in {file.name for file in ARCHITECTURES.iterdir()}:
        return _read_architecture_file(own)
    own_names = [file.stem for file in ARCHITECTURES.glob("*.json") if not file.stem.startswith("blip-")]
    known = [*own_names, *open_clip.list_models()]
    if model not in known:
        lower = {name.lower(): name for name in known}
        near = [lower[match] for match in difflib.get_close_matches(model.lower(), list(lower), n=3)]
        hint = f"near names: {', '.join(near)}" if near else "none is near"
        raise TrainingError(
            f'There is no CLIP architecture "{model}" ({hint}); '
            "name one of open_clip's, one of Caploom's own, or the path of a .json file."
        )
    config: dict[str, Any] = open_clip.get_model_config(model)
    return config


def create_clip_model(model: str, *, seed: int, logit_bias: bool = False) -> ClipModel:
    """An untrained CLIP of the architecture that `model` names; its weights depend on `seed` alone. Never downloads.

    With `logit_bias`, scale and bias start as SigLIP's do (Zhai et al., 2023), unless the architecture says otherwise.
    Raises `TrainingError` for an unknown or wrong architecture.

    Example:
        >>> create_clip_model("picture-book", seed=0).tokenize(["a cat", "a dog"]).shape
        torch.Size([2, 48])
    """
    architecture = read_architecture(model)
    if logit_bias:
        architecture = {**_SIGLIP_START, **architecture}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _instantiate(architecture, source=model)
    preprocessing = PreprocessCfg(size=network.visual.image_size)
    return ClipModel(network, architecture, preprocessing, _tokenizer(architecture))


def save_checkpoint(model: ClipModel, folder: Path) -> None:
    """Write the weights and everything needed to load them into an existing folder."""
    # Memory formats such as channels-last are not stored in the file, so they are undone before writing.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {"model_cfg": model.architecture, "preprocess_cfg": asdict(model.preprocessing)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> ClipModel:
    """The model of a checkpoint folder, on the CPU and in evaluation mode.

    Raises `StoreError` when a file is missing or does not fit the other.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise StoreError(f"{folder}: this is not a checkpoint, it has no {name}; train the recipe again.")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        architecture = config["model_cfg"]
        preprocessing = read_preprocessing(config["preprocess_cfg"])
        network = _instantiate(architecture, source=str(folder / CONFIG_FILE))
        open_clip.load_checkpoint(network, str(folder / WEIGHTS_FILE))
    except Exception as error:  # open_clip, torch and safetensors each raise their own kinds for a damaged file
        raise StoreError(
            f"{folder}: the checkpoint's {CONFIG_FILE} and {WEIGHTS_FILE} do not load together ({first_line(error)}); "
            "train the recipe again."
        ) from error
    return ClipModel(network.eval(), architecture, preprocessing, _tokenizer(architecture))


def read_preprocessing(written: dict[str, Any]) -> PreprocessCfg:
    """The preprocessing that a JSON file has, which turned its tuples into lists."""
    return PreprocessCfg(**{key: tuple(each) if isinstance(each, list) else each for key, each in written.items()})


def side_of(preprocessing: PreprocessCfg) -> int:
    """The height of the images that a model takes, in pixels."""
    return preprocessing.size if isinstance(preprocessing.size, int) else int(preprocessing.size[0])


def trim_padding(network: Network, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids (N, context length) without the columns in which every text is over, where the network allows it.

    open_clip computes every text to the full context length. Under a causal mask the tokens after the end-of-text token
    have no effect, so the same features (see `encode_text`) cost only as much as the longest of the texts.
    """
    if not _takes_short_texts(network):
        return tokens
    # The end-of-text token has the highest id, so argmax finds it, as it does in open_clip's own pooling.
    return tokens[:, : int(tokens.argmax(dim=-1).max()) + 1]


def encode_text(network: Network, tokens: torch.Tensor) -> torch.Tensor:
    """L2-normalized text features (N, d) of token ids (N, length), which `trim_padding` may have shortened."""
    if not _takes_short_texts(network):
        features: torch.Tensor = network.encode_text(tokens, normalize=True)
        return features
    # As in open_clip's CLIP.encode_text, which requires the full length.
    length = tokens.shape[1]
    states = network.token_embedding(tokens) + network.positional_embedding[:length]
    states = network.ln_final(network.transformer(states, attn_mask=network.attn_mask[:length, :length]))
    pooled = text_global_pool(states, tokens, network.text_pool_type)
    projection = network.text_projection
    if projection is not None:
        pooled = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
    return torch.nn.functional.normalize(pooled, dim=-1)


def resolve_device(device: str) -> torch.device:
    """The device that `device` names; `auto` is the GPU when there is one, else the CPU. Raises `TrainingError`."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise TrainingError(
            f'The device "{device}" cannot be used ({reason}); write auto, cpu, or a GPU that is there, such as cuda:0.'
        ) from None
    return resolved


def _read_architecture_file(file: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"{file}: there is no such architecture file; give the path of an open_clip JSON."
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: it cannot be read as JSON ({error}).") from None
    missing = [key for key in _REQUIRED_KEYS if not isinstance(config, dict) or key not in config]
    if missing:
        required = ", ".join(_REQUIRED_KEYS)
        raise TrainingError(
            f"{file}: an open_clip architecture has the keys {required}; missing: {', '.join(missing)}."
        )
    return config


def _instantiate(architecture: dict[str, Any], *, source: str) -> Network:
    """The network of a configuration, as `open_clip.create_model` builds it but without its registry of names.

    A user's file may have the name of one of open_clip's own; registering it there would redefine that name.
    """
    config = copy.deepcopy(architecture)
    text = config["text_cfg"]
    custom_text = config.pop("custom_text", False) or "hf_model_name" in text
    if "multimodal_cfg" in config:
        raise TrainingError(f"{source}: this is a captioning (CoCa) architecture; name one of CLIP's two towers.")
    try:
        # Recipes are compared from scratch: neither tower may start from pretrained weights, nor download them.
        if "timm_model_name" in config["vision_cfg"]:
            config["vision_cfg"]["timm_model_pretrained"] = False
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
        network: Network = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise TrainingError(f"{source}: open_clip cannot build this architecture ({error}).") from error
    return network


def _tokenizer(architecture: dict[str, Any]) -> Tokenize:
    text = architecture["text_cfg"]
    context_length = text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    options = text.get("tokenizer_kwargs") or {}
    if "hf_tokenizer_name" in text or "hf_model_name" in text:
        name = text.get("hf_tokenizer_name") or text["hf_model_name"]
        mode = text.get("tokenizer_mode")
        tokenize: Tokenize = open_clip.HFTokenizer(name, context_length=context_length, tokenizer_mode=mode, **options)
    else:
        tokenize = _byte_pair_tokenizer(context_length, options)
    return tokenize


def _byte_pair_tokenizer(context_length: int, options: dict[str, Any]) -> open_clip.SimpleTokenizer:
    if options:
        return open_clip.SimpleTokenizer(context_length=context_length, **options)
    tokenizer = copy.copy(_vocabulary())
    tokenizer.context_length = context_length
    # Of its own, since it grows with each word that is looked up.
    tokenizer.cache = dict(tokenizer.cache)
    return tokenizer


@functools.cache
def _vocabulary() -> open_clip.SimpleTokenizer:
    """Read once for all models: parsing its 49,408 entries takes longer than making a small model."""
    return open_clip.SimpleTokenizer()


def _takes_short_texts(network: Network) -> bool:
    return isinstance(network, open_clip.CLIP) and network.attn_mask is not None and network.text_pool_type == "argmax"
