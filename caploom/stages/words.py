"""How configurations are put into few words."""

import json
from collections.abc import Mapping
from typing import Any


def steps_in_words(steps: list[dict[str, Any]]) -> str:
    """A shear's steps: `first_sentence, max_tokens 30`."""
    if not steps:
        return "not sheared"
    return ", ".join(_step(step, "rule") for step in steps)


def mix_in_words(mix: Mapping[str, Any]) -> str:
    """A mix: its strategy and what else is set."""
    rest = {key: value for key, value in mix.items() if key != "strategy" and value not in (None, False)}
    options = ", ".join(key if value is True else f"{key} {plain(value)}" for key, value in rest.items())
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


def _step(step: dict[str, Any], key: str) -> str:
    options = step.get("parameters")
    if not isinstance(options, dict):
        options = {name: value for name, value in step.items() if name not in (key, "code_version")}
    values = " ".join(plain(value) for value in options.values() if value not in (None, {}, []))
    return f"{step[key]} {values}".strip()


def plain(value: Any) -> str:
    """A value of a configuration: text as it is, else as JSON."""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Any) -> str:
    """A configuration as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)
