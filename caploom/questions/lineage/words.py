"""How questions put an artifact, its configuration and its figures into few words."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from caploom.questions.gallery import markdown_text

_LONGEST = 160
"""Characters of a configuration told in few words."""

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

SHARDED = {"shards": "source", "raw_pairs": "source", "captions": "fingerprint", "sheared": "shear"}
"""Kinds whose artifacts are one a shard, the shard last in their names; what the part before it is called."""


def terminal_text(text: str) -> str:
    """Text that says nothing to a terminal but itself: what is no letter, mark or blank is shown by its escape."""
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    if character.isspace():
        return " "
    return character.encode("unicode_escape").decode("ascii")


def markdown_line(text: str) -> str:
    """The same inside Markdown, where it is no markup either."""
    return markdown_text(terminal_text(text))


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Text cut at so many characters, with a sign that it is."""
    return text if len(text) <= longest else f"{text[: longest - 3].rstrip()}..."


def seconds_text(seconds: float) -> str:
    """`0.3 s`, `43.6 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def time_text(timestamp: float) -> str:
    """A moment (seconds since 1970) as `2026-11-23 03:31:38` in UTC, which the text leaves out."""
    return datetime.fromtimestamp(timestamp, UTC).strftime(TIME_FORMAT)


def counted(number: int, unit: str) -> str:
    """`1,000 shards`, `1 shard`."""
    return f"{number:,} {unit[:-1] if number == 1 and unit.endswith('s') else unit}"


def in_few_words(kind: str, configuration: Mapping[str, Any]) -> str:
    """What configured an artifact; of a kind that is not known, its configuration as JSON, shortened.

    Never raises: a manifest may be of another version of the stage, and the question is still answered.
    """
    words = _WORDS.get(kind)
    try:
        text = _as_json(configuration) if words is None else words(configuration)
    except (KeyError, TypeError, AttributeError, ValueError):
        text = _as_json(configuration)
    return shortened(text)


def steps_in_words(steps: list[dict[str, Any]]) -> str:
    """A shear's steps: `first_sentence, max_tokens 30`."""
    if not steps:
        return "not sheared"
    return ", ".join(_step(step, "rule") for step in steps)


def mix_in_words(mix: Mapping[str, Any]) -> str:
    """A mix: its strategy and what else is set."""
    rest = {key: value for key, value in mix.items() if key != "strategy" and value not in (None, False)}
    options = ", ".join(key if value is True else f"{key} {_plain(value)}" for key, value in rest.items())
    return f"{mix['strategy']} mix" + (f" ({options})" if options else "")


def filters_in_words(filters: list[dict[str, Any]]) -> str:
    """A training set's filters."""
    return ", ".join(_step(step, "filter") for step in filters) if filters else "no filters"


def captioner_in_words(settings: Mapping[str, Any]) -> str:
    """A captioner: its model, prompt and decoding, or the file that it is imported from."""
    said = [str(settings.get("model") or settings.get("captions") or settings["backend"])]
    if settings["backend"] != "transformers":
        said.append(settings["backend"])
    if "prompt" in settings:
        said.append(f'prompt "{settings["prompt"]}"')
    decoding = settings.get("decoding", {})
    if decoding.get("max_new_tokens"):
        said.append(f"at most {decoding['max_new_tokens']} tokens")
    if decoding.get("sample"):
        said.append(f"sampled at temperature {decoding.get('temperature')}, top_p {decoding.get('top_p')}")
    if decoding.get("num_beams", 1) != 1:
        said.append(f"{decoding['num_beams']} beams")
    return ", ".join(said)


def trainer_in_words(configuration: Mapping[str, Any]) -> str:
    """A trainer: its model, loss, steps, batch size, learning rate and seed."""
    trainer = configuration["trainer"]
    model = str(trainer.get("model", trainer.get("kind", "?"))).removeprefix("content:")
    said = [f"{trainer.get('kind', 'model')} {model[:16]}"]
    if trainer.get("steps") is not None:
        said.append(f"{trainer['steps']:,} steps of {trainer.get('batch_size', '?')}")
    if trainer.get("epochs") is not None:
        said.append(f"{trainer['epochs']} epochs of batches of {trainer.get('batch_size', '?')}")
    if trainer.get("learning_rate") is not None:
        said.append(f"learning rate {trainer['learning_rate']:g}")
    return ", ".join([*said, f"seed {configuration['seed']}"])


def _training_set(configuration: Mapping[str, Any]) -> str:
    captioners = ", ".join(configuration["captioners"]) or "raw captions only"
    said = [mix_in_words(configuration["mix"]), filters_in_words(configuration["filters"]), captioners]
    return "; ".join(said)


def _sheared_captions(configuration: Mapping[str, Any]) -> str:
    shear = configuration["shear"]
    captioners = ", ".join(configuration["captioners"]) or "no captioners"
    return f"{'not sheared' if shear == 'none' else f'shear {shear}'}; {captioners}"


def _reader(configuration: Mapping[str, Any]) -> str:
    reader = configuration["reader"]
    options = (f"{key} {_plain(value)}" for key, value in reader.items() if key != "reader" and value is not None)
    return ", ".join([f"reader {reader['reader']}", *options])


def _report(configuration: Mapping[str, Any]) -> str:
    waiting = configuration.get("waiting", [])
    return f"factory {configuration['factory']}" + (f", {len(waiting)} recipes not measured yet" if waiting else "")


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "shards": _reader,
    "raw_pairs": lambda configuration: "",
    "captions": lambda configuration: captioner_in_words(configuration["settings"]),
    "sheared": lambda configuration: steps_in_words(configuration["steps"]),
    "sheared_captions": _sheared_captions,
    "training_set": _training_set,
    "checkpoint": trainer_in_words,
    "finetuned_checkpoint": trainer_in_words,
    "retrieval_metrics": lambda configuration: f"evaluated on {', '.join(configuration['evaluation_sets'])}",
    "ablation_report": _report,
}


def _step(step: dict[str, Any], key: str) -> str:
    options = step.get("parameters")
    if not isinstance(options, dict):
        options = {name: value for name, value in step.items() if name not in (key, "code_version")}
    values = " ".join(_plain(value) for value in options.values() if value not in (None, {}, []))
    return f"{step[key]} {values}".strip()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _as_json(value)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
