"""Builds a tiny random model and full processor of every family, saved as the folder of a published one."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

WIDTH = 64
HEADS = 4
SIDE = 32
PATCH = 8
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_LETTERS = string.ascii_letters + string.digits + " .,:;!?#<>/'-_()|\n"


@dataclass(frozen=True)
class Tiny:
    """How a family's tiny model is built, what its prompts write for an image, and where in a prompt that stands."""

    build: Callable[[], tuple[PreTrainedModel, ProcessorMixin]]
    image: str = "<image>"
    prompt: str = "{image}{question}"
    begins: bool = False

    def asking(self, question: str) -> str:
        """The raw prompt with this question."""
        return self.prompt.format(image=self.image, question=question)

    @property
    def chat_template(self) -> str:
        """A small one, which writes the token that begins a text itself where the published one does."""
        return _CHAT.replace("IMAGE", self.image).replace("BEGIN", "<s>" if self.begins else "")


_CHAT = """BEGIN{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}|{% endfor %}\
{% if add_generation_prompt %}assistant: {% endif %}"""


def save(name: str, folder: Path) -> Path:
    """Builds a family's tiny model and saves it; the same weights every time."""
    torch.manual_seed(1)
    model, processor = MODELS[name].build()
    _scatter(model)
    model.generation_config = hf.GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=2 if name == "florence2" else None
    )
    if MODELS[name].image:
        processor.chat_template = MODELS[name].chat_template
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _scatter(model: PreTrainedModel) -> None:
    """Weights so large that images and prompts matter: a freshly made model says the same of everything."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.dim() > 1:
                inputs = weights[0].numel() if weights.dim() > 3 else weights.shape[-1]
                weights.normal_(std=2 * inputs**-0.5)


def _tokenizer(*special: str, template: str = "<s> $A", **names: str) -> PreTrainedTokenizerFast:
    """Each letter is a token. It pads on the right, as the tokenizers of many published models do."""
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *_LETTERS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([*_SPECIAL, *special, *names.values()])
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **({"extra_special_tokens": names} if names else {}),
    )


def _id(processor: ProcessorMixin, token: str) -> int:
    number: int = processor.tokenizer.convert_tokens_to_ids(token)
    assert number != 3, f"{token} is no token"
    return number


def _vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def _text(tokenizer: PreTrainedTokenizerFast, model_type: str = "llama", **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        **more,
    }


def _square(side: int = SIDE) -> dict[str, int]:
    return {"height": side, "width": side}


def _llava() -> tuple[PreTrainedModel, ProcessorMixin]:
    images = hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=_square())
    processor = hf.LlavaProcessor(
        image_processor=images,
        tokenizer=_tokenizer("<image>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaConfig(
        vision_config=_vision(model_type="clip_vision_model", projection_dim=WIDTH),
        text_config=_text(processor.tokenizer),
        image_token_index=_id(processor, "<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def _llava_next() -> tuple[PreTrainedModel, ProcessorMixin]:
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=_square(), image_grid_pinpoints=pinpoints
    )
    processor = hf.LlavaNextProcessor(
        image_processor=images,
        tokenizer=_tokenizer("<image>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaNextConfig(
        vision_config=_vision(model_type="clip_vision_model", projection_dim=WIDTH),
        text_config=_text(processor.tokenizer),
        image_token_index=_id(processor, "<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(version: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    head = WIDTH // HEADS
    pixels = {
        "patch_size": PATCH,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": SIDE**2, "longest_edge": (2 * SIDE) ** 2},
    }
    video = hf.Qwen3VLVideoProcessor if version == "Qwen3VL" else hf.Qwen2VLVideoProcessor
    processor = getattr(hf, f"{version}Processor")(
        image_processor=hf.Qwen2VLImageProcessor(**pixels),
        tokenizer=_tokenizer(*_QWEN_TOKENS, template="$A"),
        video_processor=video(**pixels),
    )
    vision = {
        "depth": 2,
        "num_heads": HEADS,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        **{
            "Qwen2VL": {"embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
            "Qwen2_5_VL": {
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "out_hidden_size": WIDTH,
                "window_size": SIDE,
                "fullatt_block_indexes": [1],
            },
            "Qwen3VL": {
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "out_hidden_size": WIDTH,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
        }[version],
    }
    text = _text(
        processor.tokenizer,
        {"Qwen2VL": "qwen2_vl_text", "Qwen2_5_VL": "qwen2_5_vl_text", "Qwen3VL": "qwen3_vl_text"}[version],
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [head // 2 - 2, 1, 1]},
        **({"head_dim": head} if version == "Qwen3VL" else {}),
    )
    config = getattr(hf, f"{version}Config")(
        vision_config=vision,
        text_config=text,
        image_token_id=_id(processor, "<|image_pad|>"),
        video_token_id=_id(processor, "<|video_pad|>"),
        vision_start_token_id=_id(processor, "<|vision_start|>"),
        vision_end_token_id=_id(processor, "<|vision_end|>"),
        tie_word_embeddings=False,
    )
    return getattr(hf, f"{version}ForConditionalGeneration")(config), processor


def _internvl() -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
        template="$A",
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=_square(), crop_to_patches=True, max_patches=2),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(size=_square()),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
    )
    config = hf.InternVLConfig(
        vision_config=_vision(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        text_config=_text(tokenizer, "qwen2"),
        image_token_id=_id(processor, "<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        tie_word_embeddings=False,
    )
    return hf.InternVLForConditionalGeneration(config), processor


_IDEFICS_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def _idefics() -> tuple[PreTrainedModel, ProcessorMixin]:
    images = hf.IdeficsImageProcessor(image_size=SIDE)
    tokenizer = _tokenizer("<fake_token_around_image>", "<image>")
    processor = hf.IdeficsProcessor(images, tokenizer=tokenizer, image_size=SIDE)
    config = hf.IdeficsConfig(
        **{key: value for key, value in _text(tokenizer).items() if key not in ("model_type", "num_key_value_heads")},
        alpha_initializer="ones",
        cross_layer_interval=1,
        freeze_text_layers=False,
        freeze_vision_layers=False,
        use_resampler=True,
        vision_config={
            "embed_dim": WIDTH,
            "image_size": SIDE,
            "intermediate_size": 2 * WIDTH,
            "patch_size": PATCH,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
        },
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": HEADS,
            "resampler_head_dim": WIDTH // HEADS,
        },
    )
    return hf.IdeficsForVisionText2Text(config), processor


def _idefics2() -> tuple[PreTrainedModel, ProcessorMixin]:
    images = hf.Idefics2ImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}, do_image_splitting=False)
    processor = hf.Idefics2Processor(images, tokenizer=_tokenizer(*_IDEFICS_TOKENS[:3]), image_seq_len=4)
    config = hf.Idefics2Config(
        vision_config=_vision(image_size=2 * SIDE),
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": HEADS,
            "resampler_head_dim": WIDTH // HEADS,
            "num_key_value_heads": HEADS,
        },
        text_config=_text(processor.tokenizer, "mistral"),
        image_token_id=_id(processor, "<image>"),
        tie_word_embeddings=False,
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def _idefics3(name: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    images = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    tokenizer = _tokenizer(*_IDEFICS_TOKENS, *_TILES)
    sequence = (SIDE // PATCH // 2) ** 2
    image_processor = getattr(hf, f"{name}ImageProcessor")(**images)
    if name == "SmolVLM":
        video = hf.SmolVLMVideoProcessor(**images)
        processor = hf.SmolVLMProcessor(image_processor, tokenizer, video, image_seq_len=sequence)
    else:
        processor = hf.Idefics3Processor(image_processor, tokenizer=tokenizer, image_seq_len=sequence)
    config = getattr(hf, f"{name}Config")(
        vision_config=_vision(),
        text_config=_text(tokenizer),
        image_token_id=_id(processor, "<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


def _gemma(text: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    more = {} if text == "gemma" else {"query_pre_attn_scalar": WIDTH // HEADS, "sliding_window": 256}
    return _text(tokenizer, text, head_dim=WIDTH // HEADS, **more)


def _paligemma(text: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    images = hf.SiglipImageProcessor(size=_square())
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = hf.PaliGemmaProcessor(images, tokenizer=_tokenizer("<image>"))
    config = hf.PaliGemmaConfig(
        vision_config=_vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=_gemma(text, processor.tokenizer),
        image_token_index=_id(processor, "<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        tie_word_embeddings=False,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def _gemma3() -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    processor = hf.Gemma3Processor(hf.Gemma3ImageProcessor(size=_square()), tokenizer, image_seq_length=4)
    config = hf.Gemma3Config(
        vision_config=_vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=_gemma("gemma3_text", tokenizer),
        mm_tokens_per_image=4,
        boi_token_index=_id(processor, "<start_of_image>"),
        eoi_token_index=_id(processor, "<end_of_image>"),
        image_token_index=_id(processor, "<image_soft_token>"),
        tie_word_embeddings=False,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def _blip() -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _tokenizer("[DEC]", template="<s> $A </s>")
    processor = hf.BlipProcessor(hf.BlipImageProcessor(size=_square()), tokenizer)
    text = _text(tokenizer, "blip_text_model", encoder_hidden_size=WIDTH, hidden_dropout_prob=0.0)
    config = hf.BlipConfig(
        vision_config=_vision(),
        text_config={**text, "bos_token_id": _id(processor, "[DEC]"), "sep_token_id": 2, "projection_dim": WIDTH},
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
        return _text(tokenizer, "opt", **more)
    return _text(tokenizer, model_type)


def _qformer(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 4 + len(_LETTERS),
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


def _blip2(model_type: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _tokenizer(template="$A </s>" if model_type == "t5" else "<s> $A")
    processor = hf.Blip2Processor(hf.BlipImageProcessor(size=_square()), tokenizer, num_query_tokens=_QUERIES)
    config = hf.Blip2Config(
        vision_config=_vision(),
        qformer_config=_qformer(),
        text_config=_language(model_type, processor.tokenizer),
        num_query_tokens=_QUERIES,
        image_token_index=_id(processor, "<image>"),
    )
    return hf.Blip2ForConditionalGeneration(config), processor


def _instructblip(model_type: str) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = _tokenizer(template="$A </s>" if model_type == "t5" else "<s> $A")
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessor(size=_square()),
        tokenizer,
        qformer_tokenizer=_tokenizer(template="<s> $A </s>"),
        num_query_tokens=_QUERIES,
    )
    config = hf.InstructBlipConfig(
        vision_config=_vision(),
        qformer_config=_qformer(),
        text_config=_language(model_type, processor.tokenizer),
        num_query_tokens=_QUERIES,
        image_token_index=_id(processor, "<image>"),
    )
    return hf.InstructBlipForConditionalGeneration(config), processor


def _florence2() -> tuple[PreTrainedModel, ProcessorMixin]:
    images = hf.CLIPImageProcessor(size=_square(), do_center_crop=False)
    images.image_seq_length = (SIDE // 8) ** 2 + 1
    tokenizer = _tokenizer(image_token="<image>", template="<s> $A </s>")
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
        },
        image_token_id=_id(processor, "<image>"),
    )
    return hf.Florence2ForConditionalGeneration(config), processor


MODELS: dict[str, Tiny] = {
    "llava": Tiny(_llava, prompt="Describe {image} {question}"),
    "llava_next": Tiny(_llava_next),
    "qwen2_vl": Tiny(lambda: _qwen("Qwen2VL"), _QWEN_IMAGE),
    "qwen2_5_vl": Tiny(lambda: _qwen("Qwen2_5_VL"), _QWEN_IMAGE),
    "qwen3_vl": Tiny(lambda: _qwen("Qwen3VL"), _QWEN_IMAGE),
    "internvl": Tiny(_internvl, "<IMG_CONTEXT>"),
    "idefics": Tiny(_idefics, prompt="{image} User: {question} GPT: <answer>"),
    "idefics2": Tiny(_idefics2),
    "idefics3": Tiny(lambda: _idefics3("Idefics3"), begins=True),
    "smolvlm": Tiny(lambda: _idefics3("SmolVLM")),
    "paligemma": Tiny(lambda: _paligemma("gemma"), prompt="{image}caption {question}"),
    "paligemma2": Tiny(lambda: _paligemma("gemma2"), prompt="{image}caption {question}"),
    "gemma3": Tiny(_gemma3, "<start_of_image>", begins=True),
    "blip": Tiny(_blip, "", "a photo of {question}"),
    "blip-2-opt": Tiny(lambda: _blip2("opt"), "", "a photo of {question}"),
    "blip-2-t5": Tiny(lambda: _blip2("t5"), "", "a photo of {question}"),
    "minigpt-4": Tiny(lambda: _blip2("llama"), prompt="###Human: <Img>{image}</Img> {question} ###Assistant: "),
    "instructblip": Tiny(lambda: _instructblip("llama"), ""),
    "instructblip-t5": Tiny(lambda: _instructblip("t5"), ""),
    "florence2": Tiny(_florence2, "", "{question}"),
}
"""Every family, by the name of its contract test."""
