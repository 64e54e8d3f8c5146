"""Builds a tiny random model and full processor of every family, saved as the folder of a published one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_blips import blip, blip2, florence2, instructblip
from tiny_decoders import (
    QWEN_IMAGE,
    gemma3,
    idefics,
    idefics2,
    idefics3,
    internvl,
    llava,
    llava_next,
    paligemma,
    qwen,
)
from tiny_parts import Built
from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True)
class Tiny:
    """How a family's tiny model is built, what its prompts write for an image, and where in a prompt that stands."""

    build: Callable[[], Built]
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
    model.generation_config = GenerationConfig(
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


MODELS: dict[str, Tiny] = {
    "llava": Tiny(llava, prompt="Describe {image} {question}"),
    "llava_next": Tiny(llava_next),
    "qwen2_vl": Tiny(lambda: qwen("Qwen2VL"), QWEN_IMAGE),
    "qwen2_5_vl": Tiny(lambda: qwen("Qwen2_5_VL"), QWEN_IMAGE),
    "qwen3_vl": Tiny(lambda: qwen("Qwen3VL"), QWEN_IMAGE),
    "internvl": Tiny(internvl, "<IMG_CONTEXT>"),
    "idefics": Tiny(idefics, prompt="{image} User: {question} GPT: <answer>"),
    "idefics2": Tiny(idefics2),
    "idefics3": Tiny(lambda: idefics3("Idefics3"), begins=True),
    "smolvlm": Tiny(lambda: idefics3("SmolVLM")),
    "paligemma": Tiny(lambda: paligemma("gemma"), prompt="{image}caption {question}"),
    "paligemma2": Tiny(lambda: paligemma("gemma2"), prompt="{image}caption {question}"),
    "gemma3": Tiny(gemma3, "<start_of_image>", begins=True),
    "blip": Tiny(blip, "", "a photo of {question}"),
    "blip-2-opt": Tiny(lambda: blip2("opt"), "", "a photo of {question}"),
    "blip-2-t5": Tiny(lambda: blip2("t5"), "", "a photo of {question}"),
    "minigpt-4": Tiny(lambda: blip2("llama"), prompt="###Human: <Img>{image}</Img> {question} ###Assistant: "),
    "instructblip": Tiny(lambda: instructblip("llama"), ""),
    "instructblip-t5": Tiny(lambda: instructblip("t5"), ""),
    "florence2": Tiny(florence2, "", "{question}"),
}
"""Every family, by the name of its contract test."""
