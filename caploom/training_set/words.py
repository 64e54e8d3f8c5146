"""A caption's words, for the filters: computed by Arrow kernels, a column at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_MARKS = ".,;:!?\"'()[]{}<>«»“”„‘’‹›…·-–—−_*/\\|~`^+=#&@。、，；：！？「」『』（）【】《》،؛؟।"
# Scripts without spaces: each character is taken for a word, which is close enough for counting and comparing.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def split_words(texts: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Lower-case words of N texts: the index of each word's text, int64 and ascending, and the words.

    Words are separated by whitespace, without surrounding punctuation; punctuation alone is not a word.
    """
    lowered = pc.utf8_lower(texts)
    spaced = pc.match_substring_regex(lowered, _UNSPACED)
    if pc.any(spaced).as_py():
        lowered = pc.if_else(spaced, pc.replace_substring_regex(lowered, _UNSPACED, r" \1 "), lowered)
    parts = pc.utf8_split_whitespace(lowered)
    words = pc.utf8_trim(parts.flatten(), _MARKS)
    owner = np.repeat(np.arange(len(texts)), pc.list_value_length(parts).to_numpy(zero_copy_only=False))
    filled = pc.greater(pc.binary_length(words), 0)
    return owner[filled.to_numpy(zero_copy_only=False)], words.filter(filled)
