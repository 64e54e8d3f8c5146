"""`caploom convert minigpt4`: the converted folder computes what the original does with the published files."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from minigpt4_files import QUERIES, SIDE, VISION_WIDTH, image_features, write_files, write_tokenizer_model
from PIL import Image
from small_factory import captioner_of
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    LlamaForCausalLM,
)

from caploom.captioning.backend import ImageRef
from caploom.captioning.minigpt4 import IMAGE_TOKEN, convert_minigpt4
from caploom.captioning.minigpt4_weights import Checkpoint, qformer_sizes, vision_sizes
from caploom.captioning.transformers_backend import TransformersBackend
from caploom.cli import main
from caploom.errors import CaptionerError

BEFORE, AFTER = "###Human: <Img>", "</Img> Describe in English: ###Assistant: "


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "minigpt4"
    convert_minigpt4(files, out, dtype="float32")
    return out


def picture(number):
    image = Image.new("RGB", (40 + 7 * number, 50), (40 * number, 255 - 30 * number, 90))
    image.paste((255, 255, 0), (5, 5, 20 + number, 30))
    return image


def test_the_logits_are_those_of_the_original_computed_step_by_step(files, folder):
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    pixels = processor.image_processor([picture(0), picture(3)], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (2, 3, SIDE, SIDE)
    tokens = processor.tokenizer([BEFORE + IMAGE_TOKEN * QUERIES + AFTER] * 2, return_tensors="pt")

    vicuna = LlamaForCausalLM.from_pretrained(files.vicuna).eval()
    with torch.inference_mode():
        features = image_features(pixels)
        texts = [
            vicuna.get_input_embeddings()(
                processor.tokenizer(text, return_tensors="pt", add_special_tokens=begins)["input_ids"]
            )
            for text, begins in ((BEFORE, True), (AFTER, False))
        ]
        embeddings = [torch.cat([texts[0][0], image, texts[1][0]]) for image in features]
        expected = vicuna(inputs_embeds=torch.stack(embeddings)).logits
        logits = model(pixel_values=pixels, **tokens).logits
    known = vicuna.config.vocab_size
    assert logits.shape == (2, expected.shape[1], known + 1)
    assert expected.std() > 0.5
    assert (expected[0, -1] - expected[1, -1]).abs().max() > 0.1  # the image matters
    torch.testing.assert_close(logits[..., :known], expected, atol=1e-4, rtol=1e-4)


def test_the_sizes_are_read_from_the_files(folder):
    config = json.loads((folder / "config.json").read_text())
    vision, qformer = config["vision_config"], config["qformer_config"]
    assert [vision[key] for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")] == [176, 2, 2]
    assert [vision[key] for key in ("intermediate_size", "image_size", "patch_size")] == [300, 32, 8]
    assert [qformer[key] for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")] == [128, 2, 3]
    assert [qformer[key] for key in ("intermediate_size", "encoder_hidden_size")] == [200, 176]
    assert config["num_query_tokens"] == QUERIES
    assert config["dtype"] == "float32"


def test_the_text_behind_the_image_is_tokenized_as_a_text_of_its_own(folder):
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    image = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    around = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (BEFORE, AFTER)]
    tokens = tokenizer(BEFORE + IMAGE_TOKEN + AFTER)["input_ids"]
    assert tokens == [tokenizer.bos_token_id, *around[0], image, *around[1]]
    assert tokenizer.convert_ids_to_tokens(around[1])[0] == "▁<"


def test_images_are_resized_and_normalized_as_blip_does(folder):
    processor = AutoProcessor.from_pretrained(folder).image_processor
    grey = processor(Image.new("RGB", (90, 41), (128, 128, 128)), return_tensors="pt")["pixel_values"]
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    assert grey.shape == (1, 3, SIDE, SIDE)
    torch.testing.assert_close(grey[0, :, 5, 5], (128 / 255 - mean) / deviation, atol=1e-5, rtol=1e-5)
    assert processor.resample == Image.Resampling.BICUBIC


def test_a_captioner_of_the_folder_says_batched_what_it_says_alone(folder):
    settings = captioner_of({"preset": "minigpt-4", "model": str(folder), "dtype": "float32"})
    assert settings.prompt == BEFORE + IMAGE_TOKEN + AFTER
    backend = TransformersBackend(settings)
    images = [picture(number) for number in range(5)]
    refs = [ImageRef(f"image-{number}", "", "") for number in range(5)]
    batched = backend.generate(backend.prepare(images, refs))
    single = [backend.generate(backend.prepare([image], [ref]))[0] for image, ref in zip(images, refs, strict=True)]
    assert batched == single
    assert len({generation.text for generation in batched}) > 1
    assert not any(IMAGE_TOKEN in generation.text for generation in batched)


def test_half_the_bytes_in_float16_but_for_the_q_former(files, tmp_path):
    out = tmp_path / "half"
    convert_minigpt4(files, out)
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="auto")
    kinds = {name.split(".")[0]: tensor.dtype for name, tensor in model.state_dict().items()}
    assert kinds.pop("qformer") == kinds.pop("query_tokens") == torch.float32
    assert set(kinds.values()) == {torch.float16}
    backend = TransformersBackend(captioner_of({"model": str(out), "prompt": BEFORE + IMAGE_TOKEN + AFTER}))
    assert backend.facts["dtype"] == "float16"


def damaged(files, tmp_path, part, change):
    """The files with one checkpoint changed."""
    path = tmp_path / f"{part}.pth"
    loaded = torch.load(getattr(files, part), weights_only=True)
    change(loaded.get("model", loaded))
    torch.save(loaded, path)
    return replace(files, **{part: path})


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("vit", lambda t: t.pop("blocks.1.attn.q_bias"), "no tensor blocks.1.attn.q_bias"),
        ("vit", lambda t: t.pop("cls_token"), "no tensor cls_token"),
        ("vit", lambda t: t.update(pos_embed=torch.zeros(1, 13, VISION_WIDTH)), "13 positions"),
        (
            "vit",
            lambda t: t.update({"blocks.0.norm1.bias": torch.zeros(3)}),
            "blocks.0.norm1.bias has the shape 3 where",
        ),
        ("vit", lambda t: t.update({"patch_embed.proj.weight": torch.zeros(100, 3, 8, 8)}), "not a multiple of 88"),
        ("vit", lambda t: t.update({"patch_embed.proj.weight": torch.zeros(176)}), "has 1 dimensions where 4"),
        ("qformer", lambda t: t.pop("query_tokens"), "no tensor query_tokens"),
        ("qformer", lambda t: t.pop("ln_vision.bias"), "no tensor ln_vision.bias"),
        ("qformer", lambda t: t.pop("Qformer.bert.encoder.layer.2.crossattention.self.key.weight"), "layer.2.crossatt"),
        (
            "qformer",
            lambda t: t.update({"Qformer.bert.encoder.layer.0.crossattention.self.key.weight": torch.zeros(128, 99)}),
            "128 x 99 where 128 x 176",
        ),
        ("projection", lambda t: t.pop("llama_proj.bias"), "no tensor llama_proj.bias"),
        (
            "projection",
            lambda t: t.update({"llama_proj.weight": torch.zeros(48, 64)}),
            "from 64 to 48, and the Q-Former gives",
        ),
        ("projection", lambda t: t.update({"llama_proj.weight": torch.zeros(50, 128)}), "takes 48"),
        ("projection", lambda t: t.update({"llama_proj.weight": torch.zeros(48, 4 * 176)}), "without Q-Former"),
        ("projection", lambda t: t.update({"llama_model.lora_A": torch.zeros(1)}), "also has llama_model.lora_A"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_named_with_what_is_wrong(files, tmp_path, part, change, words):
    given = damaged(files, tmp_path, part, change)
    out = tmp_path / "out"
    with pytest.raises(CaptionerError) as error:
        convert_minigpt4(given, out)
    assert words in str(error.value)
    assert str(getattr(given, part)) in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{part}.pth"]


def test_a_file_that_could_run_code_is_refused(files, tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"model": {"llama_proj.weight": print}}, path)
    with pytest.raises(CaptionerError, match="of tensors alone"):
        convert_minigpt4(replace(files, projection=path), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        (b"", "not a torch checkpoint"),
        (b"<html>404</html>", "not a torch checkpoint"),
        ([1, 2], "not a mapping of names to tensors"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(files, tmp_path, content, words):
    path = tmp_path / "vit.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CaptionerError, match=words) as error:
        convert_minigpt4(replace(files, vit=path), tmp_path / "out")
    assert str(path) in str(error.value)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "it has no config.json"),
        (lambda vicuna: (vicuna / "config.json").write_text("{"), "configuration or tokenizer does not load"),
        (lambda vicuna: edit_json(vicuna / "config.json", model_type="opt"), "it is a opt model"),
        (lambda vicuna: edit_json(vicuna / "tokenizer_config.json", eos_token=None), "no start or end token"),
        (lambda vicuna: (vicuna / "model.safetensors").unlink(), "weights do not load"),
        (lambda vicuna: (vicuna / "model.safetensors").write_bytes(b"no weights"), "weights do not load"),
        (lambda vicuna: edit_json(vicuna / "config.json", num_hidden_layers=3), "its weights lack model.layers.2"),
    ],
)
def test_a_folder_that_is_not_vicuna_is_named_with_what_is_wrong(files, tmp_path, spoil, words):
    vicuna = tmp_path / "vicuna"
    shutil.copytree(files.vicuna, vicuna)
    spoil(vicuna)
    with pytest.raises(CaptionerError) as error:
        convert_minigpt4(replace(files, vicuna=vicuna), tmp_path / "out")
    assert words in str(error.value)
    assert str(vicuna) in str(error.value)
    assert not (tmp_path / "out").exists()


def test_weights_in_the_older_format_are_read_too(files, folder, tmp_path):
    vicuna = tmp_path / "vicuna"
    shutil.copytree(files.vicuna, vicuna)
    (vicuna / "model.safetensors").unlink()
    torch.save(LlamaForCausalLM.from_pretrained(files.vicuna).state_dict(), vicuna / "pytorch_model.bin")
    out = tmp_path / "out"
    convert_minigpt4(replace(files, vicuna=vicuna), out, dtype="float32")
    assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_tokenizer_in_sentencepiece_s_format_gives_the_same_tokens(files, folder, tmp_path):
    vicuna = tmp_path / "vicuna"
    shutil.copytree(files.vicuna, vicuna)
    write_tokenizer_model(vicuna)
    convert_minigpt4(replace(files, vicuna=vicuna), tmp_path / "out", dtype="float32")
    text = BEFORE + IMAGE_TOKEN + AFTER
    tokens = [AutoProcessor.from_pretrained(each).tokenizer(text)["input_ids"] for each in (tmp_path / "out", folder)]
    assert tokens[0] == tokens[1]


def test_without_sentencepiece_its_format_is_a_sentence(files, tmp_path, monkeypatch):
    vicuna = tmp_path / "vicuna"
    shutil.copytree(files.vicuna, vicuna)
    write_tokenizer_model(vicuna)
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    with pytest.raises(CaptionerError, match=r"needs sentencepiece .* pip install 'caploom\[minigpt4\]'"):
        convert_minigpt4(replace(files, vicuna=vicuna), tmp_path / "out")


def test_the_published_files_sizes_are_blip_2_s(tmp_path):
    """Of tensors that take no room: a file keeps one number of what was expanded."""
    first = "Qformer.bert.encoder.layer."
    shapes = {
        "vit": {
            "patch_embed.proj.weight": (1408, 3, 14, 14),
            "pos_embed": (1, 257, 1408),
            "blocks.0.mlp.fc1.weight": (6144, 1408),
            "blocks.39.norm1.weight": (1408,),
        },
        "qformer": {
            "query_tokens": (1, 32, 768),
            f"{first}0.intermediate_query.dense.weight": (3072, 768),
            f"{first}0.crossattention.self.key.weight": (768, 1408),
            f"{first}11.output_query.dense.bias": (768,),
        },
    }
    checkpoints = {}
    for name, each in shapes.items():
        torch.save({key: torch.zeros(1).expand(shape) for key, shape in each.items()}, tmp_path / name)
        checkpoints[name] = Checkpoint(tmp_path / name, name)
    for sizes, config in (
        (vision_sizes(checkpoints["vit"]), Blip2VisionConfig()),
        (qformer_sizes(checkpoints["qformer"]), Blip2QFormerConfig()),
    ):
        assert sizes == {key: getattr(config, key) for key in sizes}


def command(files, out, *more):
    options = [f"--{part}={getattr(files, part)}" for part in ("vit", "qformer", "projection", "vicuna")]
    return CliRunner().invoke(main, ["convert", "minigpt4", *options, f"--out={out}", *more])


def test_the_command_converts_and_says_each_step(files, folder, tmp_path):
    out = tmp_path / "models" / "minigpt4"
    result = command(files, out, "--dtype=float32")
    assert result.exit_code == 0
    assert result.stdout == f"{out}: MiniGPT-4 is ready; name it as the captioner's `model`.\n"
    steps = result.stderr.splitlines()
    assert [step.split(" ")[0] for step in steps] == [
        "reading",
        "reading",
        "not",
        "not",
        "reading",
        "reading",
        "writing",
    ]
    assert "not used of vit.pth: blocks.2." in result.stderr
    assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["minigpt4"]


def test_the_command_answers_a_mistake_with_its_sentence(files, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = command(files, tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}: it exists and is not an empty folder; name another folder for the model.\n"
    assert (tmp_path / "notes.txt").read_text() == "mine"
