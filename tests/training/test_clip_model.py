import json
from pathlib import Path

import open_clip
import pytest
import torch
from training_files import write_tiny_architecture

from caploom.errors import StoreError, TrainingError
from caploom.training.clip_model import (
    ARCHITECTURES,
    create_clip_model,
    encode_text,
    load_checkpoint,
    resolve_device,
    save_checkpoint,
    trim_padding,
)

torch.set_num_threads(1)

TEXTS = ["a dog", "a cat and a very long bus at night, seen from above", ""]


@pytest.fixture
def tiny_architecture(tmp_path: Path) -> Path:
    return write_tiny_architecture(tmp_path)


def images(size: int = 64) -> torch.Tensor:
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def features(network: torch.nn.Module, pixels: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return network.encode_image(pixels, normalize=True), network.encode_text(tokens, normalize=True)


def test_same_seed_gives_same_weights_and_leaves_the_global_generator_alone(tiny_architecture: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = create_clip_model(str(tiny_architecture), seed=1)
    assert torch.rand(1) == expected
    same, other = (create_clip_model(str(tiny_architecture), seed=seed) for seed in (1, 2))
    for name, weight in first.network.state_dict().items():
        assert torch.equal(weight, same.network.state_dict()[name]), name
    assert not torch.equal(first.network.text_projection, other.network.text_projection)


@pytest.mark.parametrize("model", ["picture-book", "RN50"])
def test_names_of_caploom_and_open_clip_are_known(model: str) -> None:
    if model == "picture-book":
        created = create_clip_model(model, seed=0)
        assert created.network.encode_image(images(), normalize=True).shape == (3, created.architecture["embed_dim"])
    else:
        from caploom.training.clip_model import read_architecture

        assert read_architecture(model)["vision_cfg"]["layers"] == [3, 4, 6, 3]


@pytest.mark.parametrize(("wrong", "near"), [("picturebook", "picture-book"), ("vit-b-32", "ViT-B-32")])
def test_unknown_name_is_refused_with_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(TrainingError, match=f'"{wrong}".*near names: .*{near}'):
        create_clip_model(wrong, seed=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such architecture file"),
        ('{"embed_dim": 3', "cannot be read as JSON"),
        ("[1]", "missing: embed_dim, vision_cfg, text_cfg"),
        ('{"embed_dim": 8, "vision_cfg": {"tall": 3}, "text_cfg": {}}', "open_clip cannot build this.*tall"),
        ('{"embed_dim": 8, "vision_cfg": 4, "text_cfg": {}}', "open_clip cannot build this"),
        ('{"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, "multimodal_cfg": {}}', "captioning"),
    ],
)
def test_wrong_architecture_file_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TrainingError, match=f"mine.json: .*{message}"):
        create_clip_model(str(file), seed=0)


def test_checkpoint_reloads_exactly_here_and_in_plain_open_clip(tmp_path: Path) -> None:
    model = create_clip_model("picture-book", seed=3)
    # Statistics of batch normalization are not parameters, and must survive too.
    model.network.train().encode_image(images())
    save_checkpoint(model, tmp_path)
    pixels, tokens = images(), model.tokenize(TEXTS)
    expected = features(model.network.eval(), pixels, tokens)

    loaded = load_checkpoint(tmp_path)
    assert loaded.preprocessing == model.preprocessing
    assert torch.equal(loaded.tokenize(TEXTS), tokens)

    by_folder, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    open_clip.add_model_config(ARCHITECTURES)
    by_name = open_clip.create_model("picture-book", pretrained=str(tmp_path / "model.safetensors"))
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS), tokens)
    assert tuple(transform.transforms[-1].mean) == loaded.preprocessing.mean
    for network in (loaded.network, by_folder.eval(), by_name.eval()):
        for ours, theirs in zip(expected, features(network, pixels, tokens), strict=True):
            assert torch.equal(ours, theirs)


def test_damaged_checkpoint_is_refused(tmp_path: Path, tiny_architecture: Path) -> None:
    with pytest.raises(StoreError, match=r"not a checkpoint, it has no open_clip_config\.json"):
        load_checkpoint(tmp_path)
    save_checkpoint(create_clip_model(str(tiny_architecture), seed=0), tmp_path)
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(StoreError, match="do not load together"):
        load_checkpoint(tmp_path)


def test_text_without_its_padding_has_the_same_features() -> None:
    model = create_clip_model("picture-book", seed=0)
    tokens = model.tokenize([*TEXTS, "word " * 100])
    short = trim_padding(model.network, tokens[:3])
    assert short.shape[1] < tokens.shape[1] == 48
    assert trim_padding(model.network, tokens).shape == tokens.shape
    with torch.inference_mode():
        expected = model.network.encode_text(tokens[:3], normalize=True)
        torch.testing.assert_close(encode_text(model.network, short), expected, rtol=0, atol=1e-6)


def test_text_that_sees_its_padding_is_not_shortened(tmp_path: Path) -> None:
    architecture = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "width": 8, "heads": 2, "layers": 1, "no_causal_mask": True},
    }
    file = tmp_path / "bidirectional.json"
    file.write_text(json.dumps(architecture))
    network = create_clip_model(str(file), seed=0).network
    tokens = open_clip.SimpleTokenizer(context_length=8)(["a dog"])
    assert trim_padding(network, tokens).shape == (1, 8)
    assert torch.equal(encode_text(network, tokens), network.encode_text(tokens, normalize=True))


def test_unusable_device_is_refused() -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(TrainingError, match='The device "gpu" cannot be used'):
        resolve_device("gpu")
