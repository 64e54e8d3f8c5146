"""The peer Data-Juicer: its `image_captioning_mapper`, run by an interpreter that has py-data-juicer.

It runs there and so imports nothing of Caploom. As it comes, the mapper samples at most 128 tokens and gives every
model the image token's number of BLIP-2 with OPT, which makes any other model blind to its image. Here the number is
held and the sampling is among one token, so that it captions the images and its texts can be compared.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import data_juicer.ops.mapper.image_captioning_mapper as mapper  # type: ignore[import-not-found]
from data_juicer.utils.model_utils import get_model  # type: ignore[import-not-found]

from benchmarks.child import Done, Job

_SAMPLES = 1000  # a call: the default of Data-Juicer's batched operators


def run(job: Job) -> Done:
    """Options: model_folder, prompt, photos, batch_size. Gives each file's text before the first full stop."""
    prompt = job.options["prompt"]
    operator = mapper.ImageCaptioningMapper(
        hf_img2seq=job.options["model_folder"],
        keep_original_sample=False,
        prompt=prompt,
        gpu_batch_size=job.options["batch_size"],
        accelerator="cpu",
    )
    model, processor = get_model(operator.model_key, None, False)
    _hold_image_token(model.config)
    model.language_model.generation_config.top_k = 1
    # The mapper gives the prompt back with the text, as the tokenizer spells it.
    spelt = processor.tokenizer.decode(processor.tokenizer(prompt).input_ids, skip_special_tokens=True).strip()

    def caption(paths: list[Path]) -> list[str]:
        samples = {"text": [mapper.SpecialTokens.image] * len(paths), "images": [[str(path)] for path in paths]}
        texts: list[str] = operator.process_batched(samples)["text"]
        return [text.replace(mapper.SpecialTokens.image, "").strip().removeprefix(spelt).strip() for text in texts]

    paths = sorted((job.folder / job.options["photos"]).glob("*.jpg"))
    caption(paths[: job.options["batch_size"]])
    with job.measured():
        texts = [text for start in range(0, len(paths), _SAMPLES) for text in caption(paths[start : start + _SAMPLES])]
    sentences = {path.name: text.split(".")[0].strip() for path, text in zip(paths, texts, strict=True)}
    return Done(len(paths), {"sentences": sentences}, {"py-data-juicer": metadata.version("py-data-juicer")})


def _hold_image_token(config: Any) -> None:
    class Held(type(config)):  # type: ignore[misc]
        """The model's configuration, deaf to another number of its image token."""

        def __setattr__(self, name: str, value: Any) -> None:
            if name != "image_token_index":
                super().__setattr__(name, value)

    config.__class__ = Held
