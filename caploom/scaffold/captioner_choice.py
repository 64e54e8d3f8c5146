"""Which presets run on this machine, and which one a factory begins with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caploom.captioning.presets import preset_named, presets
from caploom.captioning.settings import DEMO_PREFIX, EndpointCaptioner, TransformersCaptioner
from caploom.errors import ConfigError

_BY_ITSELF = ("qwen3-vl", "smolvlm-2.2b", "smolvlm-500m", "smolvlm-256m")
"""What is chosen where no preset is named, the first one that fits; all of them are Apache-2.0 and need no login."""

_ON_A_CPU = "smolvlm-256m"
_MOST_CPU_GB = 5  # larger models take minutes for an image on a CPU
_EXAMPLES = {"model": "./{name}", "url": "http://127.0.0.1:8000/v1"}
_WHAT_TO_EDIT = {"model": "the folder of its weights", "url": "the server's base address"}


@dataclass(frozen=True)
class Chosen:
    """A captioner of the factory.

    Attributes:
        preset: the preset's name.
        why: why it was chosen, where nobody named it.
    """

    preset: str
    why: str | None = None

    @property
    def name(self) -> str:
        """Its name in the YAML."""
        return self.preset.removeprefix(DEMO_PREFIX)

    @property
    def about(self) -> str:
        """What it is, in a sentence or two."""
        return " ".join(str(preset_named(self.preset)["about"]).split())

    def to_fill_in(self) -> dict[str, tuple[str, str]]:
        """The keys that only a person can say: an example of each, and what it is."""
        preset = preset_named(self.preset)
        fields = (EndpointCaptioner if preset.get("backend") == "openai" else TransformersCaptioner).model_fields
        lacking = [key for key, field in fields.items() if field.is_required() and key not in preset]
        return {key: (_EXAMPLES[key].format(name=self.name), _WHAT_TO_EDIT[key]) for key in lacking}


def gpu_memory_gb() -> float | None:
    """The free memory of this machine's GPUs, of the one that has the least; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())) / 1e9


def choose_captioners(
    named: Sequence[str], gpu_memory: Callable[[], float | None] = gpu_memory_gb, *, elsewhere: bool = False
) -> list[Chosen]:
    """The named presets, or one that fits the GPU, whose memory is only asked for where it matters.

    Raises `ConfigError` where a preset is unknown, or does not fit; `elsewhere` says that another machine will run it.

    Example:
        >>> [chosen.name for chosen in choose_captioners(["demo:tiny-llava"])]
        ['tiny-llava']
    """
    large = [name for name in named if not _fits(preset_named(name), None)]
    if named and (elsewhere or not large):
        return [Chosen(name) for name in dict.fromkeys(named)]
    gpu = gpu_memory()
    for name in large:
        if not _fits(preset_named(name), gpu):
            raise ConfigError(_does_not_fit(name, gpu))
    if named:
        return [Chosen(name) for name in dict.fromkeys(named)]
    if gpu is None:
        return [Chosen(_ON_A_CPU, "this machine has no GPU, and it is the smallest that knows photos")]
    name = next((name for name in _BY_ITSELF if _fits(presets()[name], gpu)), _ON_A_CPU)
    return [Chosen(name, f"it fits this machine's GPU, which has {gpu:.0f} GB free")]


def runnable(gpu: float | None) -> list[str]:
    """The presets that run in this process on such a machine, the largest first."""
    fitting = {name: preset for name, preset in presets().items() if _fits(preset, gpu) and "memory_gb" in preset}
    return sorted(fitting, key=lambda name: -fitting[name]["memory_gb"])


def _fits(preset: Mapping[str, Any], gpu: float | None) -> bool:
    """Whether its memory is there; a preset without `memory_gb` runs on a server."""
    return float(preset.get("memory_gb", 0)) <= (_MOST_CPU_GB if gpu is None else gpu)


def _does_not_fit(name: str, gpu: float | None) -> str:
    memory = f"{preset_named(name)['memory_gb']:g} GB"
    here = "this machine has no GPU" if gpu is None else f"this machine's GPU has {gpu:.1f} GB free"
    return (
        f"The preset {name} needs a GPU with {memory}, and {here}; these would run here: {', '.join(runnable(gpu))}. "
        "If the factory will run on another machine, say so with --elsewhere."
    )
