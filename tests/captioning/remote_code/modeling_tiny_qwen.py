"""Code such as lies in Qwen-VL's repository, tiny: its forward opens the images whose paths the prompt holds."""

import torch
from PIL import Image
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class TinyQwenConfig(PretrainedConfig):
    model_type = "qwen"

    def __init__(self, vocab_size=260, hidden_size=32, image_start_id=256, **kwargs):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.image_start_id = image_start_id
        super().__init__(**kwargs)


class TinyQwenForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = TinyQwenConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.wte = nn.Embedding(config.vocab_size, width)
        self.visual = nn.Linear(3 * 4 * 4, width)
        self.mix = nn.Linear(2 * width, width)
        self.lm_head = nn.Linear(width, config.vocab_size)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.wte

    def forward(self, input_ids, attention_mask=None, **kwargs):
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.wte(input_ids)
        for row, ids in enumerate(input_ids.tolist()):
            begin, end = ids.index(self.config.image_start_id), ids.index(self.config.image_start_id + 1)
            with Image.open(bytes(ids[begin + 1 : end]).decode()) as image:
                pixels = torch.tensor(list(image.resize((4, 4)).convert("RGB").tobytes()), dtype=hidden.dtype)
            hidden[row, begin + 1 : end] = self.visual(pixels / 64 - 2)
        mask = attention_mask[..., None]
        position = mask.cumsum(dim=1)
        seen = (hidden * mask).cumsum(dim=1) / position.clamp(min=1)
        mixed = self.mix(torch.cat([4 * seen, hidden], dim=-1))
        turned = torch.sin(mixed + position * torch.arange(mixed.shape[-1]) / 3)
        return CausalLMOutput(logits=self.lm_head(turned))
