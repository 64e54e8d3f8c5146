"""Tiny models of BLIP and its descendants, MiniGPT-4 among them, and of Florence-2."""

from typing import Any

import transformers as hf
from tiny_parts import HEADS, LETTERS, SIDE, WIDTH, Built, square, text_of, token_id, tokenizer_of, vision
from transformers import PreTrainedTokenizerFast


def blip() -> Built:
    tokenizer = tokenizer_of("[DEC]", template="<s> $A </s>")
    processor = hf.BlipProcessor(hf.BlipImageProcessor(size=square()), tokenizer)
    text = text_of(tokenizer, "blip_text_model", encoder_hidden_size=WIDTH, hidden_dropout_prob=0.0)
    config = hf.BlipConfig(
        vision_config=vision(),
        text_config={**text, "bos_token_id": token_id(processor, "[DEC]"), "sep_token_id": 2, "projection_dim": WIDTH},
        projection_dim=WIDTH,
        image_text_hidden_size=WIDTH,
        tie_word_embeddings=False,
    )
    return hf.BlipForConditionalGeneration(config), processor


_QUERIES = 4


def _t5(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "vocab_size": len(tokenizer),
        "d_model": WIDTH,
        "d_kv": WIDTH // HEADS,
        "d_ff": 2 * WIDTH,
        "num_layers": 2,
        "num_heads": HEADS,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "dropout_rate": 0.0,
        "tie_word_embeddings": False,
    }


def _language(model_type: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    if model_type == "t5":
        return _t5(tokenizer)
    if model_type == "opt":
        more = {"ffn_dim": 2 * WIDTH, "word_embed_proj_dim": WIDTH, "dropout": 0.0}
        return text_of(tokenizer, "opt", **more)
    return text_of(tokenizer, model_type)


def _qformer(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 4 + len(LETTERS),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "encoder_hidden_size": WIDTH,
        "cross_attention_frequency": 1,
        "max_position_embeddings": 256,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **more,
    }


def blip2(model_type: str) -> Built:
    tokenizer = tokenizer_of(template="$A </s>" if model_type == "t5" else "<s> $A")
    processor = hf.Blip2Processor(hf.BlipImageProcessor(size=square()), tokenizer, num_query_tokens=_QUERIES)
    config = hf.Blip2Config(
        vision_config=vision(),
        qformer_config=_qformer(),
        text_config=_language(model_type, processor.tokenizer),
        num_query_tokens=_QUERIES,
        image_token_index=token_id(processor, "<image>"),
    )
    return hf.Blip2ForConditionalGeneration(config), processor


def instructblip(model_type: str) -> Built:
    tokenizer = tokenizer_of(template="$A </s>" if model_type == "t5" else "<s> $A")
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessor(size=square()),
        tokenizer,
        qformer_tokenizer=tokenizer_of(template="<s> $A </s>"),
        num_query_tokens=_QUERIES,
    )
    config = hf.InstructBlipConfig(
        vision_config=vision(),
        qformer_config=_qformer(),
        text_config=_language(model_type, processor.tokenizer),
        num_query_tokens=_QUERIES,
        image_token_index=token_id(processor, "<image>"),
    )
    return hf.InstructBlipForConditionalGeneration(config), processor


def florence2() -> Built:
    images = hf.CLIPImageProcessor(size=square(), do_center_crop=False)
    images.image_seq_length = (SIDE // 8) ** 2 + 1
    tokenizer = tokenizer_of(image_token="<image>", template="<s> $A </s>")
    processor = hf.Florence2Processor(image_processor=images, tokenizer=tokenizer)
    config = hf.Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [WIDTH, WIDTH],
            "num_heads": [HEADS, HEADS],
            "num_groups": [HEADS, HEADS],
            "window_size": 4,
            "drop_path_rate": 0.0,
            "projection_dim": WIDTH,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS,
            "encoder_ffn_dim": 2 * WIDTH,
            "decoder_ffn_dim": 2 * WIDTH,
            "max_position_embeddings": 256,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            "dropout": 0.0,
            "tie_word_embeddings": False,
        },
        image_token_id=token_id(processor, "<image>"),
        tie_word_embeddings=False,
    )
    return hf.Florence2ForConditionalGeneration(config), processor
