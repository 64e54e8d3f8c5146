"""A loop that behaves as the released code does (written from its description, none of its code is in it).

Fixed batches in file order; for each, the images are decoded, then processed, then `generate` runs to the cap as long
as one row of the batch does; the text before the first full stop is kept, and the JSON is written at the end. Greedy,
where the release samples, so that the texts can be compared.
"""

import json
from pathlib import Path

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.captioning.inputs import BATCH_SIZE, PHOTOS, picture_paths
from benchmarks.child import Done, Job


def run(job: Job) -> Done:
    """Options: model_folder, prompt, max_new_tokens. Gives each file's sheared caption, and the share at the cap."""
    processor = AutoProcessor.from_pretrained(job.options["model_folder"])
    processor.tokenizer.padding_side = "left"
    model = AutoModelForImageTextToText.from_pretrained(job.options["model_folder"]).eval()
    at_cap = 0

    def caption(paths: list[str]) -> list[dict[str, str]]:
        nonlocal at_cap
        images = [Image.open(path).convert("RGB") for path in paths]
        prompts = [job.options["prompt"]] * len(images)
        inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=job.options["max_new_tokens"], do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        at_cap += int((new == model.generation_config.eos_token_id).any(dim=1).logical_not().sum())
        texts = processor.batch_decode(new, skip_special_tokens=True)
        return [{"image": path, "caption": text.split(".")[0]} for path, text in zip(paths, texts, strict=True)]

    paths = picture_paths(job.folder / PHOTOS)
    caption(paths[:BATCH_SIZE])
    at_cap = 0
    with job.measured():
        rows = []
        for start in range(0, len(paths), BATCH_SIZE):
            rows += caption(paths[start : start + BATCH_SIZE])
        (job.folder / "seed_loop.json").write_text(json.dumps(rows), encoding="utf-8")
    sentences = {Path(row["image"]).name: row["caption"].strip() for row in rows}
    return Done(len(paths), {"sentences": sentences, "share_at_cap": at_cap / len(paths)})
