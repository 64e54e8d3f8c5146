"""CLIP's tokenizer as Hugging Face's tokenizers build it, from the vocabulary that open_clip brings."""

from typing import Any

import open_clip
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

_PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def hf_clip_tokenizer() -> Any:
    """The tokenizer, without the tokens that begin and end a text."""
    clip = open_clip.SimpleTokenizer()
    merges = [pair for pair, _ in sorted(clip.bpe_ranks.items(), key=lambda item: item[1])]
    tokenizer = Tokenizer(models.BPE(clip.encoder, merges, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
