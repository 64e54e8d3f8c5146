import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from caploom.errors import ExportError
from caploom.training.clip_model import ClipModel, create_clip_model, save_checkpoint
from caploom.training.transformers_export import export_to_transformers

torch.set_num_threads(1)

VISION = {"image_size": 48, "layers": 2, "width": 64, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2}
TEXTS = ["a red ball", "Two GREEN boats, on a long river!", "it's the 3rd of May; nothing else", "word " * 60]


def tiny(folder: Path, **changes: object) -> ClipModel:
    architecture = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, **changes}
    file = folder / "tiny.json"
    file.write_text(json.dumps(architecture))
    model = create_clip_model(str(file), seed=0)
    with torch.no_grad():  # the untrained biases are zero, and would hide one that is forgotten
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.network.eval()
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quick_gelu": True},
        {"vision_cfg": {**VISION, "mlp_ratio": 2.0}, "text_cfg": {**TEXT, "width": 48, "heads": 2, "layers": 1}},
        {"init_logit_bias": -10.0},
    ],
    ids=["gelu", "quick_gelu", "other widths", "siglip's bias"],
)
def test_transformers_gives_the_embeddings_of_open_clip(tmp_path: Path, changes: dict) -> None:
    model = tiny(tmp_path, **changes)
    (tmp_path / "out").mkdir()
    export_to_transformers(model, tmp_path / "out")
    exported = AutoModel.from_pretrained(tmp_path / "out").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 255, (70, 100, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    here = open_clip.image_transform(48, is_train=False)(image)[None]
    inputs = processor(images=image, text=TEXTS, return_tensors="pt", padding="max_length", truncation=True)
    tokens = model.tokenize(TEXTS)
    padded = torch.where(tokens == 0, 49407, tokens)  # with the end of text, as transformers does
    assert torch.equal(inputs["input_ids"], padded)
    assert torch.allclose(inputs["pixel_values"], here, atol=0.02)  # it resizes eight-bit images its own way
    with torch.inference_mode():
        theirs = exported(input_ids=inputs["input_ids"], pixel_values=here)
        images = model.network.encode_image(here, normalize=True)
        texts = model.network.encode_text(tokens, normalize=True)
    assert torch.allclose(theirs.image_embeds, images, atol=1e-5)
    assert torch.allclose(theirs.text_embeds, texts, atol=1e-5)
    assert torch.allclose(exported.logit_scale, model.network.logit_scale)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"vision_cfg": {**VISION, "layers": [1, 1, 1, 1]}}, "the vision tower"),
        ({"vision_cfg": {**VISION, "ls_init_value": 1e-5}}, r"ls_1\.gamma"),
        ({"vision_cfg": {**VISION, "no_ln_pre": True}}, "pre_layrnorm"),
        ({"vision_cfg": {**VISION, "pool_type": "avg"}}, "something of the tower of images"),
        ({"text_cfg": {**TEXT, "no_causal_mask": True}}, "the text tower, which is not causal"),
        ({"text_cfg": {**TEXT, "vocab_size": 50000}}, "the vocabulary"),
        ({"text_cfg": {**TEXT, "tokenizer_kwargs": {"clean": "canonicalize"}}}, "the tokenizer"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name(tmp_path: Path, changes: dict, part: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match=rf"^transformers' CLIPModel has no counterpart of .*{part}"):
        export_to_transformers(tiny(tmp_path, **changes), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_resized_there_as_here(tmp_path: Path, interpolation: str) -> None:
    model = tiny(tmp_path)
    model = replace(model, preprocessing=replace(model.preprocessing, interpolation=interpolation))
    (tmp_path / "out").mkdir()
    export_to_transformers(model, tmp_path / "out")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 100, 3), dtype=np.uint8))
    here = open_clip.image_transform(48, is_train=False, interpolation=interpolation)(image)
    exact = CLIPImageProcessorPil.from_pretrained(tmp_path / "out")(images=image, return_tensors="pt")
    assert torch.allclose(exact["pixel_values"][0], here, atol=1e-5)


def test_images_resized_another_way_are_refused(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    longest = replace(model, preprocessing=replace(model.preprocessing, resize_mode="longest"))
    with pytest.raises(ExportError, match=r"the way images are resized \(bicubic, longest\)"):
        export_to_transformers(longest, tmp_path)


def test_plain_open_clip_loads_a_checkpoint_by_folder_and_by_file(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    (tmp_path / "saved").mkdir()
    save_checkpoint(model, tmp_path / "saved")
    by_folder, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    open_clip.add_model_config(tmp_path / "tiny.json")
    by_file = open_clip.create_model("tiny", pretrained=str(tmp_path / "saved" / "model.safetensors"))
    image = transform(Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 50, 3), dtype=np.uint8)))[None]
    tokens = model.tokenize(TEXTS)
    with torch.inference_mode():
        for other in (by_folder.eval(), by_file.eval()):
            assert torch.allclose(other.encode_image(image), model.network.encode_image(image), atol=1e-6)
            assert torch.allclose(other.encode_text(tokens), model.network.encode_text(tokens), atol=1e-6)
