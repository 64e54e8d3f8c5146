"""What the tiny models of all families are made of: a tokenizer of letters, and configurations of their parts."""

import string
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

Built = tuple[PreTrainedModel, ProcessorMixin]
WIDTH = 64
HEADS = 4
SIDE = 32
PATCH = 8
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
LETTERS = string.ascii_letters + string.digits + " .,:;!?#<>/'-_()|\n"


def tokenizer_of(*special: str, template: str = "<s> $A", **names: str) -> PreTrainedTokenizerFast:
    """Each letter is a token. It pads on the right, as the tokenizers of many published models do."""
    vocabulary = {token: number for number, token in enumerate((*_SPECIAL, *LETTERS))}
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


def token_id(processor: ProcessorMixin, token: str) -> int:
    number: int = processor.tokenizer.convert_tokens_to_ids(token)
    assert number != 3, f"{token} is no token"
    return number


def vision(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
        **more,
    }


def text_of(tokenizer: PreTrainedTokenizerFast, model_type: str = "llama", **more: Any) -> dict[str, Any]:
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


def square(side: int = SIDE) -> dict[str, int]:
    return {"height": side, "width": side}
