"""Tiny checkpoint files with the names of MiniGPT-4's published ones, and what the original computes with them."""

import json
from pathlib import Path

import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from caploom.captioning.minigpt4 import MiniGPT4Files

VISION_WIDTH, VISION_HEADS, BLOCKS, PATCH, SIDE = 176, 2, 3, 8, 32
QFORMER_WIDTH, QFORMER_HEADS, LAYERS, QUERIES = 128, 2, 3, 5
TEXT_WIDTH = 48


class Random:
    """Named tensors, drawn so that layer norms keep the signal's size and biases matter."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors: dict[str, Tensor] = {}

    def draw(self, name: str, *shape: int, scale: float = 0.3, mean: float = 0.0) -> None:
        self.tensors[name] = torch.randn(*shape, generator=self.generator) * scale + mean

    def linear(self, name: str, into: int, outof: int, *, bias: bool = True) -> None:
        self.draw(f"{name}.weight", into, outof, scale=1.5 * outof**-0.5)
        if bias:
            self.draw(f"{name}.bias", into)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, mean=1.0)
        self.draw(f"{name}.bias", width)


def vit_tensors() -> dict[str, Tensor]:
    random, width = Random(1), VISION_WIDTH
    random.draw("cls_token", 1, 1, width)
    random.draw("pos_embed", 1, (SIDE // PATCH) ** 2 + 1, width)
    random.draw("patch_embed.proj.weight", width, 3, PATCH, PATCH, scale=0.1)
    random.draw("patch_embed.proj.bias", width)
    for number in range(BLOCKS):
        block = f"blocks.{number}."
        random.norm(f"{block}norm1", width)
        random.draw(f"{block}attn.q_bias", width)
        random.draw(f"{block}attn.v_bias", width)
        random.linear(f"{block}attn.qkv", 3 * width, width, bias=False)
        random.linear(f"{block}attn.proj", width, width)
        random.norm(f"{block}norm2", width)
        random.linear(f"{block}mlp.fc1", 300, width)
        random.linear(f"{block}mlp.fc2", width, 300)
    random.norm("norm", width)
    random.linear("head", 10, width)
    return random.tensors


def qformer_tensors() -> dict[str, Tensor]:
    random, width = Random(2), QFORMER_WIDTH
    random.draw("query_tokens", 1, QUERIES, width)
    random.norm("ln_vision", VISION_WIDTH)
    random.norm("Qformer.bert.embeddings.LayerNorm", width)
    random.tensors["Qformer.bert.embeddings.position_ids"] = torch.arange(16)[None]
    for number in range(LAYERS):
        layer = f"Qformer.bert.encoder.layer.{number}."
        attentions = {"attention": width, **({"crossattention": VISION_WIDTH} if number % 2 == 0 else {})}
        for attention, seen in attentions.items():
            random.linear(f"{layer}{attention}.self.query", width, width)
            random.linear(f"{layer}{attention}.self.key", width, seen)
            random.linear(f"{layer}{attention}.self.value", width, seen)
            random.linear(f"{layer}{attention}.output.dense", width, width)
            random.norm(f"{layer}{attention}.output.LayerNorm", width)
        for suffix in ("", "_query"):  # the first is for texts, which BLIP-2's captioning does not give the Q-Former
            random.linear(f"{layer}intermediate{suffix}.dense", 200, width)
            random.linear(f"{layer}output{suffix}.dense", width, 200)
            random.norm(f"{layer}output{suffix}.LayerNorm", width)
    random.linear("t5_proj", 64, width)
    return random.tensors


def projection_tensors() -> dict[str, Tensor]:
    random = Random(3)
    random.linear("llama_proj", TEXT_WIDTH, QFORMER_WIDTH)
    return random.tensors


LETTERS = sorted(set("▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.,:#</>"))
VOCABULARY = ["<unk>", "<s>", "</s>", *LETTERS, "▁<"]


def write_vicuna(folder: Path) -> None:
    """A tiny LLaMA with a tokenizer of letters; like LLaMA's own it has no padding token."""
    specials = {
        name: AddedToken(token, normalized=False, special=True)
        for name, token in {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}.items()
    }
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    LlamaTokenizer(vocab=vocabulary, merges=[("▁", "<")], **specials).save_pretrained(folder)
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=TEXT_WIDTH,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def write_tokenizer_model(folder: Path) -> None:
    """The same tokenizer as `tokenizer.model`, sentencepiece's format, in which LLaMA's and Vicuna's were published."""
    (folder / "tokenizer.json").unlink()
    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    for token in VOCABULARY:
        model.pieces.add(
            piece=token, type=kinds.get(token, 1), score=0.0 if token == "▁<" else -float(VOCABULARY.index(token))
        )
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    names = {"tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def write_files(folder: Path) -> MiniGPT4Files:
    """The three checkpoint files and Vicuna's folder."""
    files = MiniGPT4Files(folder / "vit.pth", folder / "qformer.pth", folder / "projection.pth", folder / "vicuna")
    torch.save(vit_tensors(), files.vit)
    torch.save({"model": qformer_tensors()}, files.qformer)
    # The published one is a training checkpoint: more than the model is in it.
    torch.save({"model": projection_tensors(), "optimizer": {"step": 7}, "epoch": 3}, files.projection)
    write_vicuna(files.vicuna)
    return files


def image_features(pixels: Tensor) -> Tensor:
    """What the original gives the language model for images: (batch, 3, side, side) to (batch, queries, width)."""
    seen = _qformer(_vision(pixels))
    weights = projection_tensors()
    return linear(seen, weights["llama_proj.weight"], weights["llama_proj.bias"])


def _vision(pixels: Tensor) -> Tensor:
    weights = vit_tensors()
    patches = nn.functional.conv2d(
        pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=PATCH
    )
    hidden = torch.cat([weights["cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    hidden = hidden + weights["pos_embed"]
    for number in range(BLOCKS - 1):
        block = {
            name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"blocks.{number}.")
        }
        normed = _norm(hidden, block, "norm1", 1e-6)
        query, key, value = linear(normed, block["attn.qkv.weight"]).chunk(3, dim=-1)
        attended = _attention(query + block["attn.q_bias"], key, value + block["attn.v_bias"], VISION_HEADS)
        hidden = hidden + _linear(attended, block, "attn.proj")
        normed = _norm(hidden, block, "norm2", 1e-6)
        hidden = hidden + _linear(gelu(_linear(normed, block, "mlp.fc1")), block, "mlp.fc2")
    return _norm(hidden, qformer_tensors(), "ln_vision", 1e-5)


def _qformer(image: Tensor) -> Tensor:
    weights = {name.removeprefix("Qformer.bert."): value for name, value in qformer_tensors().items()}
    hidden = _norm(weights["query_tokens"].expand(len(image), -1, -1), weights, "embeddings.LayerNorm", 1e-12)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}."
        for attention in ("attention", "crossattention"):
            if f"{layer}{attention}.self.query.weight" not in weights:
                continue
            query, key, value = (
                _linear(given, weights, f"{layer}{attention}.self.{name}")
                for name, given in (
                    ("query", hidden),
                    ("key", hidden if attention == "attention" else image),
                    ("value", hidden if attention == "attention" else image),
                )
            )
            attended = _linear(
                _attention(query, key, value, QFORMER_HEADS), weights, f"{layer}{attention}.output.dense"
            )
            hidden = _norm(attended + hidden, weights, f"{layer}{attention}.output.LayerNorm", 1e-12)
        inner = gelu(_linear(hidden, weights, f"{layer}intermediate_query.dense"))
        outer = _linear(inner, weights, f"{layer}output_query.dense")
        hidden = _norm(outer + hidden, weights, f"{layer}output_query.LayerNorm", 1e-12)
    return hidden


def _linear(given: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return linear(given, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(given: Tensor, weights: dict[str, Tensor], name: str, epsilon: float) -> Tensor:
    return layer_norm(given, given.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
