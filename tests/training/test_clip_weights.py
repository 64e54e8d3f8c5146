import json
from pathlib import Path

import pytest
import torch
from training_files import TINY_ARCHITECTURE, TrainingFiles, train_files, write_tiny_architecture

from caploom.errors import TrainingError
from caploom.training.clip_model import ClipModel, create_clip_model, load_checkpoint, save_checkpoint
from caploom.training.clip_weights import start_model
from caploom.training.settings import ClipTrainerSettings

torch.set_num_threads(1)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(write_tiny_architecture(tmp_path))


@pytest.fixture
def trained(tiny: str) -> ClipModel:
    """Weights that are no seed's."""
    model = create_clip_model(tiny, seed=5)
    with torch.no_grad():
        model.network.text_projection.mul_(2)
    return model


def same(one: ClipModel, other: ClipModel) -> bool:
    weights = other.network.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in one.network.state_dict().items())


def test_without_weights_the_seed_decides(tiny: str) -> None:
    assert same(start_model(tiny, None, seed=3), create_clip_model(tiny, seed=3))


def test_weights_of_a_file_of_either_kind(tmp_path: Path, tiny: str, trained: ClipModel) -> None:
    (tmp_path / "saved").mkdir()
    save_checkpoint(trained, tmp_path / "saved")
    of_peer = {f"module.{name}": tensor for name, tensor in trained.network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": of_peer}, tmp_path / "epoch_3.pt")
    for weights in (tmp_path / "saved" / "model.safetensors", tmp_path / "epoch_3.pt"):
        assert same(start_model(tiny, str(weights), seed=0), trained)


def test_a_checkpoint_folder_brings_its_preprocessing(tmp_path: Path, tiny: str, trained: ClipModel) -> None:
    (tmp_path / "saved").mkdir()
    save_checkpoint(trained, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"mean": [0.5, 0.5, 0.5], "interpolation": "bilinear"}
    (tmp_path / "saved" / "open_clip_config.json").write_text(json.dumps(config))
    started = start_model(tiny, str(tmp_path / "saved"), seed=0)
    assert same(started, trained)
    assert started.preprocessing.mean == (0.5, 0.5, 0.5)
    assert started.preprocessing.interpolation == "bilinear"
    assert started.preprocessing.size == trained.preprocessing.size


def test_weights_of_another_architecture_are_told_apart(tmp_path: Path, tiny: str, trained: ClipModel) -> None:
    (tmp_path / "saved").mkdir()
    save_checkpoint(trained, tmp_path / "saved")
    wider = {**TINY_ARCHITECTURE, "vision_cfg": {**TINY_ARCHITECTURE["vision_cfg"], "width": 48}}
    (tmp_path / "wider.json").write_text(json.dumps(wider))
    file = tmp_path / "saved" / "model.safetensors"
    sentence = (
        rf"{file}: these weights are for another architecture than {tmp_path}/wider\.json: "
        r"visual\.\S+ is [\dx]+ there and [\dx]+ here, and \d+ more differ; name that architecture"
    )
    with pytest.raises(TrainingError, match=sentence):
        start_model(str(tmp_path / "wider.json"), str(file), seed=0)
    deeper = {**TINY_ARCHITECTURE, "text_cfg": {**TINY_ARCHITECTURE["text_cfg"], "layers": 2}}
    (tmp_path / "deeper.json").write_text(json.dumps(deeper))
    with pytest.raises(TrainingError, match=r"transformer\.resblocks\.1\.\S+ is only here"):
        start_model(str(tmp_path / "deeper.json"), str(file), seed=0)


def test_siglip_s_bias_comes_and_goes_with_the_loss(tmp_path: Path, tiny: str, trained: ClipModel) -> None:
    (tmp_path / "plain").mkdir()
    save_checkpoint(trained, tmp_path / "plain")
    with_bias = start_model(tiny, str(tmp_path / "plain"), seed=0, logit_bias=True)
    assert with_bias.network.logit_bias.item() == -10  # SigLIP's own start, since these weights have none
    (tmp_path / "sigmoid").mkdir()
    save_checkpoint(with_bias, tmp_path / "sigmoid")
    assert start_model(tiny, str(tmp_path / "sigmoid"), seed=0).network.logit_bias is None
    assert load_checkpoint(tmp_path / "sigmoid").network.logit_bias is not None


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        ("/nowhere/weights.pt", r"/nowhere/weights\.pt: there is no such file of weights"),
        ("laion", r'open_clip has no weights "laion" for .*tiny\.json; known: none are published'),
    ],
)
def test_weights_that_are_not_there_are_named(tiny: str, pretrained: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        start_model(tiny, pretrained, seed=0)


def test_weights_trained_with_another_activation_are_refused() -> None:
    with pytest.raises(TrainingError, match=r'The weights "openai" of ViT-B-32 .* name ViT-B-32-quickgelu'):
        start_model("ViT-B-32", "openai", seed=0)


def test_a_folder_without_weights_is_refused(tmp_path: Path, tiny: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"it contains none of model\.safetensors"):
        start_model(tiny, str(tmp_path / "empty"), seed=0)


def test_training_starts_from_them(tmp_path: Path, tiny: str, trained: ClipModel) -> None:
    (tmp_path / "saved").mkdir()
    save_checkpoint(trained, tmp_path / "saved")
    settings = {
        "model": tiny,
        "pretrained": str(tmp_path / "saved"),
        "steps": 1,
        "batch_size": 8,
        "learning_rate": 1e-9,
        "weight_decay": 0.0,
        "device": "cpu",
    }
    (tmp_path / "out").mkdir()
    train_files(
        [TrainingFiles(tmp_path).colours_shard()],
        ClipTrainerSettings.model_validate(settings),
        seed=0,
        out=tmp_path / "out",
    )
    found = load_checkpoint(tmp_path / "out").network.text_projection
    assert torch.allclose(found, trained.network.text_projection, atol=1e-6)
