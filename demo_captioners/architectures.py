"""Builds the four tiny captioners from scratch: a model and a full processor of each family that the paper used.

They are ordinary members of their families in everything but size, so that the demo loads and runs them through the
same path as the large ones: ``AutoProcessor`` and ``AutoModelForImageTextToText`` on a folder. About 0.9 to 1.4 million
parameters each; the words of a text are its tokens, and the vocabulary is that of the four captioners' texts.

This module imports torch and transformers: import it only where models are built or trained.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    CLIPImageProcessor,
    GenerationConfig,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    IdeficsImageProcessor,
    IdeficsProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from caploom.demo.scenes import compose
from caploom.demo.world import SCENE_SIZE
from demo_captioners.characters import CHARACTERS, describe

MAX_NEW_TOKENS = 44
"""No trained text is longer, in the captioners' tokens (words and punctuation marks)."""

_WORD_START = "\u2581"
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_WIDTH = 128
_HEADS = 4
_POSITIONS = 256
# One query for each patch-sized cell of a picture.
_QUERY_TOKENS = 16
_HALF = [0.5, 0.5, 0.5]
_SIZE = {"height": SCENE_SIZE, "width": SCENE_SIZE}
# The texts of this many scenes contain every word of every captioner.
_SCENES_FOR_VOCABULARY = 4_000


@dataclass(frozen=True)
class Family:
    """How one tiny captioner is built.

    Attributes:
        prompt: the text to pass to the processor with each image, placeholders included.
        placeholders: the tokens that the family's processor and prompt need as single tokens.
        build: makes the untrained model and the processor.
    """

    prompt: str
    placeholders: tuple[str, ...]
    build: Callable[[PreTrainedTokenizerFast], tuple[PreTrainedModel, ProcessorMixin]]


def build(name: str, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Build an untrained captioner.

    Args:
        name: a key of ``FAMILIES``.
        seed: seed of the initial weights.

    Returns:
        the model, with its generation config, and its processor, padding on the left.
    """
    family = FAMILIES[name]
    tokenizer = build_tokenizer(family)
    torch.manual_seed(seed)
    model, processor = family.build(tokenizer)
    model.generation_config = GenerationConfig(
        **_special_ids(tokenizer),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    return model, processor


def build_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose decoded text is normal English, padding on the left."""
    words = sorted(_words_of_all_captioners() | _tokens_of_prompt(family))
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=_WORD_START, prepend_scheme="first"),
            pre_tokenizers.Split(Regex(r"[^\w\u2581\-]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_WORD_START, prepend_scheme="first")
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=True, normalized=False, special=True) for token in family.placeholders]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=_POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _tokens_of(text: str) -> set[str]:
    spaced = _WORD_START + text.replace(" ", _WORD_START)
    return set(re.findall(rf"{_WORD_START}?[\w-]+|[^\w\s-]", spaced)) - {_WORD_START}


def _tokens_of_prompt(family: Family) -> set[str]:
    text = family.prompt
    for placeholder in family.placeholders:
        text = text.replace(placeholder, " ")
    # A word after a placeholder has no space before it.
    return _tokens_of(" ".join(text.split())) | set(re.findall(r"[\w-]+", text))


@cache
def _words_of_all_captioners() -> frozenset[str]:
    words: set[str] = set()
    for character in CHARACTERS.values():
        for index in range(_SCENES_FOR_VOCABULARY):
            scene = compose(0, "captioner-training", index)
            words |= _tokens_of(describe(character, scene, random.Random(index)))
    return frozenset(words)


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}


def _llama(tokenizer: PreTrainedTokenizerFast, intermediate_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=intermediate_size,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=_POSITIONS,
        **_special_ids(tokenizer),
        tie_word_embeddings=False,
    )


def _build_llava(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    patch = 16
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 4,
            "num_attention_heads": _HEADS,
            "image_size": SCENE_SIZE,
            "patch_size": patch,
            "projection_dim": _WIDTH,
        },
        text_config=_llama(tokenizer, 3 * _WIDTH),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SCENE_SIZE // patch) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    images = CLIPImageProcessor(size=_SIZE, crop_size=_SIZE, image_mean=_HALF, image_std=_HALF)
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def _build_qwen_vl(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    patch, merge, width, depth = 8, 2, 96, 2
    pixels = {"shortest_edge": SCENE_SIZE**2, "longest_edge": SCENE_SIZE**2}
    head = _WIDTH // _HEADS
    config = Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "depth": depth,
            "num_heads": _HEADS,
            "patch_size": patch,
            "spatial_merge_size": merge,
            "temporal_patch_size": 2,
            "out_hidden_size": _WIDTH,
            "window_size": SCENE_SIZE,
            "fullatt_block_indexes": list(range(depth)),
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _WIDTH,
            "intermediate_size": 3 * _WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS,
            "max_position_embeddings": _POSITIONS,
            **_special_ids(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                # Time, height and width share half of a head's dimensions.
                "mrope_section": [head // 2 - 2 * (head // 6), head // 6, head // 6],
            },
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    settings = {
        "patch_size": patch,
        "merge_size": merge,
        "temporal_patch_size": 2,
        "size": pixels,
        "image_mean": _HALF,
        "image_std": _HALF,
    }
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**settings),
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _build_minigpt_4(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    config = Blip2Config(
        vision_config={
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": _HEADS,
            "image_size": SCENE_SIZE,
            "patch_size": 16,
            # The published default, 1e-10, assumes that weights are loaded over it.
            "initializer_range": 0.02,
        },
        qformer_config={
            "vocab_size": 1,
            "hidden_size": _WIDTH,
            "intermediate_size": 2 * _WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "encoder_hidden_size": _WIDTH,
            "cross_attention_frequency": 1,
            "max_position_embeddings": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=_llama(tokenizer, 2 * _WIDTH).to_dict(),
        num_query_tokens=_QUERY_TOKENS,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    images = BlipImageProcessor(size=_SIZE, image_mean=_HALF, image_std=_HALF)
    processor = Blip2Processor(image_processor=images, tokenizer=tokenizer, num_query_tokens=_QUERY_TOKENS)
    model = Blip2ForConditionalGeneration(config)
    # Queries that start equal stay equal: the Q-Former has nothing else to distinguish them.
    torch.nn.init.normal_(model.query_tokens, std=0.5)
    return model, processor


def _build_otter(tokenizer: PreTrainedTokenizerFast) -> tuple[PreTrainedModel, ProcessorMixin]:
    config = IdeficsConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        max_position_embeddings=_POSITIONS,
        # The gates start open: opening them from zero takes a tiny model a large part of its training.
        alpha_initializer="ones",
        cross_layer_interval=1,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        use_resampler=True,
        **_special_ids(tokenizer),
        vision_config={
            "embed_dim": _WIDTH,
            "image_size": SCENE_SIZE,
            "intermediate_size": 2 * _WIDTH,
            "patch_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": _HEADS,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": _QUERY_TOKENS,
            "resampler_depth": 1,
            "resampler_n_heads": _HEADS,
            "resampler_head_dim": _WIDTH // _HEADS,
        },
    )
    images = IdeficsImageProcessor(image_size=SCENE_SIZE, image_mean=_HALF, image_std=_HALF)
    return IdeficsForVisionText2Text(config), IdeficsProcessor(images, tokenizer=tokenizer, image_size=SCENE_SIZE)


FAMILIES: dict[str, Family] = {
    "tiny-llava": Family("Describe <image> in English:", ("<image>",), _build_llava),
    "tiny-qwen-vl": Family(
        "<|vision_start|><|image_pad|><|vision_end|>Express emotional or artistic response:",
        ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        _build_qwen_vl,
    ),
    "tiny-minigpt-4": Family(
        "###Human: Describe in English: ###Assistant:", ("<image>", "###Human:", "###Assistant:"), _build_minigpt_4
    ),
    "tiny-otter": Family(
        "User: Describe in English: GPT: <answer>",
        ("<image>", "<fake_token_around_image>", "User:", "GPT:", "<answer>"),
        _build_otter,
    ),
}
"""The tiny captioners by name."""
