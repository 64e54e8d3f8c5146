"""Tiny models of the families whose language model reads the image among the tokens of its prompt."""

from typing import Any

import transformers as hf
from tiny_parts import HEADS, PATCH, SIDE, WIDTH, Built, square, text_of, token_id, tokenizer_of, vision
from transformers import PreTrainedTokenizerFast


def llava() -> Built:
    images = hf.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=square())
    processor = hf.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer_of("<image>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaConfig(
        vision_config=vision(model_type="clip_vision_model", projection_dim=WIDTH),
        text_config=text_of(processor.tokenizer),
        image_token_index=token_id(processor, "<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next() -> Built:
    pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    images = hf.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=square(), image_grid_pinpoints=pinpoints
    )
    processor = hf.LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer_of("<image>"),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaNextConfig(
        vision_config=vision(model_type="clip_vision_model", projection_dim=WIDTH),
        text_config=text_of(processor.tokenizer),
        image_token_index=token_id(processor, "<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=(SIDE // PATCH) ** 2,
        tie_word_embeddings=False,
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen(version: str) -> Built:
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
        tokenizer=tokenizer_of(*_QWEN_TOKENS, template="$A"),
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
    text = text_of(
        processor.tokenizer,
        {"Qwen2VL": "qwen2_vl_text", "Qwen2_5_VL": "qwen2_5_vl_text", "Qwen3VL": "qwen3_vl_text"}[version],
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [head // 2 - 2, 1, 1]},
        **({"head_dim": head} if version == "Qwen3VL" else {}),
    )
    config = getattr(hf, f"{version}Config")(
        vision_config=vision,
        text_config=text,
        image_token_id=token_id(processor, "<|image_pad|>"),
        video_token_id=token_id(processor, "<|video_pad|>"),
        vision_start_token_id=token_id(processor, "<|vision_start|>"),
        vision_end_token_id=token_id(processor, "<|vision_end|>"),
        tie_word_embeddings=False,
    )
    return getattr(hf, f"{version}ForConditionalGeneration")(config), processor


def internvl() -> Built:
    tokenizer = tokenizer_of(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
        template="$A",
    )
    processor = hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(size=square(), crop_to_patches=True, max_patches=2),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(size=square()),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
    )
    config = hf.InternVLConfig(
        vision_config=vision(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH]),
        text_config=text_of(tokenizer, "qwen2"),
        image_token_id=token_id(processor, "<IMG_CONTEXT>"),
        image_seq_length=(SIDE // PATCH // 2) ** 2,
        tie_word_embeddings=False,
    )
    return hf.InternVLForConditionalGeneration(config), processor


_IDEFICS_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
_TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def idefics() -> Built:
    images = hf.IdeficsImageProcessor(image_size=SIDE)
    tokenizer = tokenizer_of("<fake_token_around_image>", "<image>")
    processor = hf.IdeficsProcessor(images, tokenizer=tokenizer, image_size=SIDE)
    config = hf.IdeficsConfig(
        **{key: value for key, value in text_of(tokenizer).items() if key not in ("model_type", "num_key_value_heads")},
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


def idefics2() -> Built:
    images = hf.Idefics2ImageProcessor(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}, do_image_splitting=False)
    processor = hf.Idefics2Processor(images, tokenizer=tokenizer_of(*_IDEFICS_TOKENS[:3]), image_seq_len=4)
    config = hf.Idefics2Config(
        vision_config=vision(image_size=2 * SIDE),
        perceiver_config={
            "hidden_size": WIDTH,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": HEADS,
            "resampler_head_dim": WIDTH // HEADS,
            "num_key_value_heads": HEADS,
        },
        text_config=text_of(processor.tokenizer, "mistral"),
        image_token_id=token_id(processor, "<image>"),
        tie_word_embeddings=False,
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def idefics3(name: str) -> Built:
    images = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    tokenizer = tokenizer_of(*_IDEFICS_TOKENS, *_TILES)
    sequence = (SIDE // PATCH // 2) ** 2
    image_processor = getattr(hf, f"{name}ImageProcessor")(**images)
    if name == "SmolVLM":
        video = hf.SmolVLMVideoProcessor(**images)
        processor = hf.SmolVLMProcessor(image_processor, tokenizer, video, image_seq_len=sequence)
    else:
        processor = hf.Idefics3Processor(image_processor, tokenizer=tokenizer, image_seq_len=sequence)
    config = getattr(hf, f"{name}Config")(
        vision_config=vision(),
        text_config=text_of(tokenizer),
        image_token_id=token_id(processor, "<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


def _gemma(text: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    more = {} if text == "gemma" else {"query_pre_attn_scalar": WIDTH // HEADS, "sliding_window": 256}
    return text_of(tokenizer, text, head_dim=WIDTH // HEADS, **more)


def paligemma(text: str) -> Built:
    images = hf.SiglipImageProcessor(size=square())
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = hf.PaliGemmaProcessor(images, tokenizer=tokenizer_of("<image>"))
    config = hf.PaliGemmaConfig(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=_gemma(text, processor.tokenizer),
        image_token_index=token_id(processor, "<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        tie_word_embeddings=False,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def gemma3() -> Built:
    tokenizer = tokenizer_of(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    processor = hf.Gemma3Processor(hf.Gemma3ImageProcessor(size=square()), tokenizer, image_seq_length=4)
    config = hf.Gemma3Config(
        vision_config=vision(model_type="siglip_vision_model", vision_use_head=False),
        text_config=_gemma("gemma3_text", tokenizer),
        mm_tokens_per_image=4,
        boi_token_index=token_id(processor, "<start_of_image>"),
        eoi_token_index=token_id(processor, "<end_of_image>"),
        image_token_index=token_id(processor, "<image_soft_token>"),
        tie_word_embeddings=False,
    )
    return hf.Gemma3ForConditionalGeneration(config), processor
