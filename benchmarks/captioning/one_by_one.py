"""The peer that most people begin with: transformers' `image-text-to-text` pipeline, called for one image at a time."""

from pathlib import Path

from transformers import pipeline

from benchmarks.captioning.inputs import PHOTOS, picture_paths
from benchmarks.child import Done, Job

_WARM_UP = 8


def run(job: Job) -> Done:
    """Options: model_folder, prompt, max_new_tokens. Gives each file's text before the first full stop."""
    captioner = pipeline("image-text-to-text", model=job.options["model_folder"], device="cpu")

    def caption(path: str) -> str:
        answers = captioner(
            images=path,
            text=job.options["prompt"],
            max_new_tokens=job.options["max_new_tokens"],
            return_full_text=False,
            generate_kwargs={"do_sample": False},
        )
        text: str = answers[0]["generated_text"]
        return text.split(".")[0].strip()

    paths = picture_paths(job.folder / PHOTOS)
    for path in paths[:_WARM_UP]:
        caption(path)
    with job.measured():
        sentences = {Path(path).name: caption(path) for path in paths}
    return Done(len(paths), {"sentences": sentences})
