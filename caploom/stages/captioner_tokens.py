"""Counting in a captioner's own tokenizer, for `{max_tokens: 30, tokenizer: captioner}`."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from caploom.captioning.identity import model_location
from caploom.captioning.settings import TransformersCaptioner
from caploom.config.factory_config import FactoryConfig
from caploom.errors import CaptionerError, ConfigError
from caploom.shearing.rule import CountTokens
from caploom.shearing.settings import ShearStep


def check_tokenizers(config: FactoryConfig, captioner: str, steps: Sequence[ShearStep]) -> None:
    """Raises `ConfigError` when a step counts in the captioner's tokenizer and it has none that can be loaded here."""
    settings = config.captioners.get(captioner)
    if settings is not None and _asked(steps) and not isinstance(settings, TransformersCaptioner):
        raise ConfigError(
            f'The captioner "{captioner}" has the backend {settings.backend}, whose tokenizer is not known here, and '
            "a shear says tokenizer: captioner: write tokenizer: clip, or use max_words."
        )


def captioner_tokens(config: FactoryConfig, captioner: str, steps: Sequence[ShearStep]) -> CountTokens | None:
    """What counts a text's tokens, special ones left out, if a step asks for it; raises `CaptionerError`."""
    settings = config.captioners[captioner]
    if not _asked(steps) or not isinstance(settings, TransformersCaptioner):
        return None
    tokenizer = _tokenizer(model_location(settings), settings.revision, settings.trust_remote_code)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    return count


def _asked(steps: Sequence[ShearStep]) -> bool:
    return any(step.parameters.get("tokenizer") == "captioner" for step in steps)


@lru_cache(maxsize=8)
def _tokenizer(location: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer  # heavy: only where tokens are counted

    try:
        return AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CaptionerError(
            f"{location}: its tokenizer cannot be loaded ({first}); write tokenizer: clip in the shear."
        ) from None
