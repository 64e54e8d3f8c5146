"""BLIP of transformers (Li et al., 2022): one vision encoder, one text encoder, one captioner that shares most of both.

A checkpoint folder contains `blip_config.json` and two folders in transformers' own layout: `retrieval`, which
`BlipForImageTextRetrieval.from_pretrained` loads, and `captioning`, for `BlipForConditionalGeneration`.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from caploom.common.text import first_line
from caploom.errors import StoreError, TrainingError
from caploom.training.clip_model import ARCHITECTURES, Tokenize, read_preprocessing, side_of

CONFIG_FILE = "blip_config.json"
RETRIEVAL_FOLDER, CAPTIONING_FOLDER = "retrieval", "captioning"

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_START = "[DEC]"  # with which the captioner's texts start
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,;:!?'\"-()&%/+#$@*=<>[]_~`|^{}\\"
_MAX_TEXT_LENGTH = 35  # tokens, as in the original's training
_START_TEMPERATURE = 0.07


class BlipNetwork(torch.nn.Module):
    """Both of transformers' models; the captioner has its own self-attention and shares the rest of the encoders."""

    def __init__(self, retrieval: BlipForImageTextRetrieval, captioning: BlipForConditionalGeneration) -> None:
        super().__init__()
        self.retrieval, self.captioning = retrieval, captioning
        self.temperature = torch.nn.Parameter(torch.tensor(_START_TEMPERATURE))
        encoder, decoder = retrieval.text_encoder, captioning.text_decoder.bert
        captioning.vision_model = retrieval.vision_model
        decoder.embeddings = encoder.embeddings
        captioning.text_decoder.cls.predictions.decoder.weight = encoder.embeddings.word_embeddings.weight
        for of_encoder, of_decoder in zip(encoder.encoder.layer, decoder.encoder.layer, strict=True):
            for part in ("crossattention", "intermediate", "output"):
                setattr(of_decoder, part, getattr(of_encoder, part))

    def encode_images(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalized images (N, 3, h, w) -> L2-normalized features (N, d) and states (N, patches + 1, width)."""
        states = self.retrieval.vision_model(pixel_values=images).last_hidden_state
        return normalize(self.retrieval.vision_proj(states[:, 0]), dim=-1), states

    def encode_texts(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids (N, length), 0 where a text is over -> L2-normalized features (N, d)."""
        states = self.retrieval.text_encoder(input_ids=tokens, attention_mask=tokens.ne(0)).last_hidden_state
        return normalize(self.retrieval.text_proj(states[:, 0]), dim=-1)

    def match(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """States of N images, token ids of N texts -> logits (N, 2): for no match and for a match."""
        fused = self.retrieval.text_encoder(
            input_ids=tokens,
            attention_mask=tokens.ne(0),
            encoder_hidden_states=states,
            encoder_attention_mask=states.new_ones(states.shape[:-1], dtype=torch.long),
        ).last_hidden_state
        logits: torch.Tensor = self.retrieval.itm_head(fused[:, 0])
        return logits

    def caption_logits(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (N, length, vocabulary) of each next token of N texts about N images."""
        logits: torch.Tensor = self.captioning.text_decoder(
            input_ids=tokens,
            attention_mask=tokens.ne(0),
            encoder_hidden_states=states,
            encoder_attention_mask=states.new_ones(states.shape[:-1], dtype=torch.long),
            use_cache=False,
        ).logits
        return logits


@dataclass(frozen=True)
class BlipModel:
    """A BLIP with everything needed to use it.

    Attributes:
        network: both models.
        tokenizer: its pad id is 0, its texts start with [CLS] and end with [SEP].
        preprocessing: size, mean and standard deviation of the images that it takes; they are squashed to a square.
        max_text_length: tokens, with those at the ends.
    """

    network: BlipNetwork
    tokenizer: PreTrainedTokenizerFast
    preprocessing: PreprocessCfg
    max_text_length: int

    @property
    def tokenize(self) -> Tokenize:
        """Texts -> int64 token ids (N, max_text_length), 0 where a text is over; longer texts are cut."""

        def tokenize(texts: list[str]) -> torch.Tensor:
            encoded = self.tokenizer(
                texts, padding="max_length", truncation=True, max_length=self.max_text_length, return_tensors="pt"
            )
            ids: torch.Tensor = encoded["input_ids"]
            return ids

        return tokenize

    @property
    def start_token(self) -> int:
        """The id with which the captioner's texts start, instead of [CLS]."""
        return int(self.network.captioning.config.text_config.bos_token_id)


def create_blip(model: str, *, seed: int, revision: str | None = None, pretrained: bool = True) -> BlipModel:
    """The BLIP that `model` names: one of Caploom's own, an architecture file, a folder, or a hub id.

    Raises `TrainingError` when there is none, or it is not a BLIP.
    """
    own = ARCHITECTURES / f"{model}.json"
    file = own if own.is_file() else Path(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if file.suffix == ".json":
            return _of_architecture(file)
        if (file / CONFIG_FILE).is_file():
            found = load_blip(file)
            return found if pretrained else replace(found, network=_new_network(found.network.retrieval.config))
        return _of_transformers(model, revision, pretrained=pretrained)


def save_blip(model: BlipModel, folder: Path) -> None:
    """Write a checkpoint folder."""
    side, preprocessing = side_of(model.preprocessing), model.preprocessing
    images = BlipImageProcessor(
        size={"height": side, "width": side}, image_mean=list(preprocessing.mean), image_std=list(preprocessing.std)
    )
    for name, network in (
        (RETRIEVAL_FOLDER, model.network.retrieval),
        (CAPTIONING_FOLDER, model.network.captioning),
    ):
        network.save_pretrained(folder / name)
        BlipProcessor(images, model.tokenizer).save_pretrained(folder / name)
    config = {
        "preprocessing": asdict(model.preprocessing),
        "max_text_length": model.max_text_length,
        "temperature": float(model.network.temperature.detach()),
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_blip(folder: Path) -> BlipModel:
    """The model of a checkpoint folder, on the CPU and in evaluation mode; raises `StoreError` if it is incomplete."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        network = BlipNetwork(
            BlipForImageTextRetrieval.from_pretrained(folder / RETRIEVAL_FOLDER, local_files_only=True),
            BlipForConditionalGeneration.from_pretrained(folder / CAPTIONING_FOLDER, local_files_only=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(folder / RETRIEVAL_FOLDER, local_files_only=True)
        network.temperature.data.fill_(config["temperature"])
        preprocessing = read_preprocessing(config["preprocessing"])
        return BlipModel(network.eval(), tokenizer, preprocessing, config["max_text_length"])
    except Exception as error:  # transformers, torch and safetensors each raise their own kinds for a damaged file
        reason = first_line(error)
        raise StoreError(f"{folder}: this is not a complete BLIP checkpoint ({reason}); retrain the recipe.") from error


def _of_architecture(file: Path) -> BlipModel:
    try:
        architecture: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        tokenizer = _tokenizer(architecture["words"])
        text = {
            **architecture["text"],
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "bos_token_id": tokenizer.convert_tokens_to_ids(_START),
        }
        config = BlipConfig(
            text_config=text,
            vision_config=architecture["vision"],
            image_text_hidden_size=architecture["embed_dim"],
        )
        length, limit = architecture["max_text_length"], config.text_config.max_position_embeddings
        if length > limit:
            raise ValueError(f"max_text_length is {length} and text.max_position_embeddings {limit}")
        preprocessing = PreprocessCfg(size=architecture["vision"]["image_size"], resize_mode="squash")
        return BlipModel(_new_network(config), tokenizer, preprocessing, length)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{file}: it is not a BLIP architecture ({error}); see docs/blip.md for its keys."
        ) from error


def _of_transformers(model: str, revision: str | None, *, pretrained: bool) -> BlipModel:
    """A retrieval model of transformers; its captioner starts from its text encoder."""
    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        if not isinstance(config, BlipConfig):
            raise ValueError(f"its config.json is of the kind {config.model_type}")
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        if tokenizer.pad_token_id != 0:
            raise ValueError(f"its tokenizer pads with {tokenizer.pad_token_id} and not with 0")
        images = BlipImageProcessor.from_pretrained(model, revision=revision)
        network = _pretrained_network(model, revision) if pretrained else _new_network(config)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{model}: no BLIP can be loaded from it ({first_line(error)}); name a folder or a hub model of the kind "
            "BlipForImageTextRetrieval."
        ) from error
    preprocessing = PreprocessCfg(
        size=images.size["height"], mean=tuple(images.image_mean), std=tuple(images.image_std), resize_mode="squash"
    )
    length = min(_MAX_TEXT_LENGTH, config.text_config.max_position_embeddings)
    return BlipModel(network, tokenizer, preprocessing, length)


def _pretrained_network(model: str, revision: str | None) -> BlipNetwork:
    retrieval, found = BlipForImageTextRetrieval.from_pretrained(model, revision=revision, output_loading_info=True)
    if found["missing_keys"]:  # transformers would initialize them at random, with a warning
        missing = sorted(found["missing_keys"])
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} others")
    captioning = BlipForConditionalGeneration(retrieval.config)
    captioning.text_decoder.bert.load_state_dict(retrieval.text_encoder.state_dict())
    return BlipNetwork(retrieval, captioning)


def _new_network(config: BlipConfig) -> BlipNetwork:
    return BlipNetwork(BlipForImageTextRetrieval(config), BlipForConditionalGeneration(config))


def _tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with some words, and single letters for all others."""
    pieces = [*_SPECIAL.values(), _START, *_MARKS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    known = list(dict.fromkeys([*pieces, *words]))
    vocabulary = {piece: number for number, piece in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=[_START], **_SPECIAL)
