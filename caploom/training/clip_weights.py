"""The weights that a CLIP model starts from: none, open_clip's published ones, a file, a folder, a hub's repository."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
import torch

from caploom.common.text import first_line
from caploom.errors import TrainingError
from caploom.training.clip_model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ClipModel,
    Network,
    create_clip_model,
    read_architecture,
    read_preprocessing,
)

HUB_PREFIX = "hf-hub:"

_WEIGHTS_NAMES = (WEIGHTS_FILE, "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_PICKLED_NAMES = ("open_clip_pytorch_model.bin", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def start_model(model: str, pretrained: str | None, *, seed: int, logit_bias: bool = False) -> ClipModel:
    """A model of the architecture that `model` names, with the weights that `pretrained` names, or untrained.

    Args:
        model: see `create_clip_model`.
        pretrained: a file (safetensors, or what torch loads without running code, such as `open_clip_train`'s),
            a checkpoint folder of Caploom or open_clip, `hf-hub:owner/name[@revision]`, or one of open_clip's tags.
        seed: for parameters that are not in the weights.
        logit_bias: whether the model needs SigLIP's bias.

    Raises:
        TrainingError: if there is no such architecture or weights, or they don't belong together.
    """
    untrained = create_clip_model(model, seed=seed, logit_bias=logit_bias)
    if pretrained is None:
        return untrained
    if pretrained.startswith(HUB_PREFIX):
        return _from_hub(untrained, model, pretrained)
    path = Path(pretrained)
    if path.is_dir():
        return _from_folder(untrained, model, path)
    if path.is_absolute() or path.suffix in _SUFFIXES:
        if not path.is_file():
            raise TrainingError(f"{path}: there is no such file of weights; correct `pretrained`.")
        load_weights(untrained.network, path, model)
        return untrained
    return _published(untrained, model, pretrained)


def load_weights(network: Network, file: Path, model: str) -> None:
    """Load a file of weights into a network of the architecture `model`; raises `TrainingError` for another's."""
    try:
        state = open_clip.factory.load_state_dict(str(file), weights_only=True)
        there = {name: tuple(tensor.shape) for name, tensor in state.items()}
    except Exception as error:  # torch, pickle and safetensors each raise their own kinds for a damaged file
        reason = first_line(error)
        raise TrainingError(f"{file}: these are not weights of {model} ({reason}); correct `pretrained`.") from error
    # A bias is SigLIP's: it is dropped where another loss is trained, and initialized where there was none.
    left_out = "logit_bias" in there and network.logit_bias is None
    started = None if network.logit_bias is None or "logit_bias" in there else network.logit_bias.detach().clone()
    if left_out:
        network.logit_bias = torch.nn.Parameter(torch.zeros(()))
    try:
        missing, unknown = open_clip.load_checkpoint(network, str(file), strict=False, weights_only=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise TrainingError(_difference(file, model, network, there)) from error
    finally:
        if left_out:
            network.logit_bias = None
    if missing or unknown:
        raise TrainingError(_difference(file, model, network, there))
    if started is not None:
        network.logit_bias.data.copy_(started)  # open_clip has set it to zero


def _difference(file: Path, model: str, network: Network, there: dict[str, tuple[int, ...]]) -> str:
    here = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    differing = [name for name in here if name in there and there[name] != here[name]]
    if differing:
        first = differing[0]
        what = f"{first} is {_shown(there[first])} there and {_shown(here[first])} here"
        others = len(differing) - 1
    else:
        alone = [*(name for name in here if name not in there), *(name for name in there if name not in here)]
        what = f"{alone[0]} is only {'here' if alone[0] in here else 'there'}" if alone else "they do not fit"
        others = max(0, len(alone) - 1)
    more = f", and {others:,} more differ" if others else ""
    return f"{file}: these weights are for another architecture than {model}: {what}{more}; name that architecture."


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _from_folder(untrained: ClipModel, model: str, folder: Path) -> ClipModel:
    weights = next((folder / name for name in (*_WEIGHTS_NAMES, *_PICKLED_NAMES) if (folder / name).is_file()), None)
    if weights is None:
        names = ", ".join((*_WEIGHTS_NAMES, *_PICKLED_NAMES))
        raise TrainingError(f"{folder}: it contains none of {names}; name a checkpoint folder or a file of weights.")
    load_weights(untrained.network, weights, model)
    config = folder / CONFIG_FILE
    return _preprocessed(untrained, _read_preprocessing(config)) if config.is_file() else untrained


def _from_hub(untrained: ClipModel, model: str, pretrained: str) -> ClipModel:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    name, _, revision = pretrained.removeprefix(HUB_PREFIX).partition("@")
    found: dict[str, Path] = {}
    why = "it has none of the files that open_clip writes"
    for file in (CONFIG_FILE, *_WEIGHTS_NAMES, *_PICKLED_NAMES):
        try:
            found[file] = Path(hf_hub_download(name, file, revision=revision or None))
        except EntryNotFoundError:
            continue  # of these files, a repository has one or two
        except (HfHubHTTPError, OSError, ValueError) as error:
            why = first_line(error)
            break
        if file != CONFIG_FILE:
            break
    weights = [path for file, path in found.items() if file != CONFIG_FILE]
    if not weights:
        raise TrainingError(
            f"{pretrained}: its weights cannot be loaded ({why}); correct it, or download them and name the folder."
        )
    load_weights(untrained.network, weights[0], model)
    return _preprocessed(untrained, _read_preprocessing(found[CONFIG_FILE])) if CONFIG_FILE in found else untrained


def _published(untrained: ClipModel, model: str, tag: str) -> ClipModel:
    """Published weights, from open_clip's cache or downloaded."""
    tags = open_clip.list_pretrained_tags_by_model(model)
    if tag not in tags:
        known = ", ".join(tags) or "none are published, name a file"
        raise TrainingError(f'open_clip has no weights "{tag}" for {model}; known: {known}.')
    config = open_clip.get_pretrained_cfg(model, tag)
    if bool(config.get("quick_gelu")) != bool(read_architecture(model).get("quick_gelu")):
        other = model.removesuffix("-quickgelu") if model.endswith("-quickgelu") else f"{model}-quickgelu"
        raise TrainingError(f'The weights "{tag}" of {model} were trained with another activation; name {other}.')
    try:
        weights = Path(open_clip.download_pretrained(config))
    except Exception as error:  # the hub and the network each raise their own kinds
        reason = first_line(error)
        raise TrainingError(
            f'The weights "{tag}" of {model} cannot be loaded ({reason}); download them first and name the file.'
        ) from error
    load_weights(untrained.network, weights, model)
    return _preprocessed(untrained, config)


def _read_preprocessing(config: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")).get("preprocess_cfg", {})
    return found


def _preprocessed(model: ClipModel, meta: dict[str, Any]) -> ClipModel:
    """The model with its weights' own image preprocessing; the size is the architecture's."""
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    given = {key: meta[key] for key in keys if key in meta}
    return replace(model, preprocessing=read_preprocessing({**asdict(model.preprocessing), **given}))
