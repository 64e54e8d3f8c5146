"""What captioning so many images costs on so many GPUs: from rates measured in a store, or else published ones.

The published ones are few, of other people's prompts and lengths, and each with its address: they say the order of
magnitude. A model of which nothing was found has no rate, and none is made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from caploom.common.text import columns, counted
from caploom.config.factory import Factory
from caploom.questions.cost.rates import rate_of
from caploom.stages.captions_cost import CAPTIONS_COST
from caploom.stages.graph import Graph

DATA_SETS = {"CC3M": 3_000_000, "15 M": 15_000_000, "LAION-400M": 400_000_000}
"""How many images `caploom plan --cluster` reckons with, unless told otherwise."""


@dataclass(frozen=True)
class CaptionRate:
    """Captions a second of one model on one GPU (or, where measured so, on one CPU worker).

    Attributes:
        captioner: whose; a captioner of the YAML, or a published model.
        per_second: None where nothing is known.
        basis: on what, and how it was measured.
        source: the address, or "this store".
    """

    captioner: str
    per_second: float | None
    basis: str
    source: str


PUBLISHED = (
    CaptionRate(
        "LLaVA (Llama 3 8B)",
        12_125 / (3.7 * 3600),
        "L4 24 GB, vLLM, 8 requests at once, a classifying prompt; 12,125 images in 3.7 h (2026)",
        "https://tayler-erbe.github.io/tayler-portfolio/archival-image-throughput-evaluation.html",
    ),
    CaptionRate(
        "LLaVA (Llama 3 8B)",
        9 / 60,
        "L4 24 GB, Ollama, one request at a time; 9 images a minute (2026)",
        "https://tayler-erbe.github.io/tayler-portfolio/archival-image-throughput-evaluation.html",
    ),
    CaptionRate(
        "Qwen2-VL 7B",
        1 / 0.6,
        "RTX 5070, one request at a time; about 600 ms a response (2026)",
        "https://botmonster.com/ai/run-vision-models-locally-florence-2-qwen-vl/",
    ),
    CaptionRate(
        "Florence-2-large",
        1 / 0.15,
        "RTX 5070, one image at a time; about 150 ms an image (2026)",
        "https://botmonster.com/ai/run-vision-models-locally-florence-2-qwen-vl/",
    ),
    CaptionRate(
        "CogVLM",
        1 / 2.5,
        "A100, its own code, one image at a time; a user's 2.5 s an image, untuned (2023)",
        "https://github.com/zai-org/CogVLM/issues/75",
    ),
    CaptionRate("LLaVA-1.5 7B, 13B", None, "no rate of captioning was found that names GPU and engine", ""),
    CaptionRate("MiniGPT-4, Otter, Qwen-VL (the paper's)", None, "no published rate was found", ""),
)


@dataclass(frozen=True)
class ClusterCost:
    """One captioner over one number of images.

    Attributes:
        gpu_hours: None where no rate is known; so are the others.
        machine_hours: the same, of machines that each have several GPUs.
        days: with all GPUs at work.
    """

    rate: CaptionRate
    images: int
    gpu_hours: float | None
    machine_hours: float | None
    days: float | None
    price: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "captioner": self.rate.captioner,
            "captions_per_second_and_gpu": self.rate.per_second and round(self.rate.per_second, 4),
            "basis": self.rate.basis,
            "source": self.rate.source,
            "images": self.images,
            "gpu_hours": self.gpu_hours and round(self.gpu_hours, 1),
            "machine_hours": self.machine_hours and round(self.machine_hours, 1),
            "days": self.days and round(self.days, 2),
            "price": None if self.price is None else round(self.price, 2),
        }


def measured_rates(factory: Factory) -> list[CaptionRate]:
    """The rates of the YAML's captioners in its store; None where a captioner has not run there."""
    graph = Graph(factory, tolerant=True)
    found = []
    for name in factory.config.captioners:
        rate = rate_of(graph, graph.stage("captions"), CAPTIONS_COST, (name, ""))  # of no shard in particular
        basis = rate.basis if rate else "it has not run in this store yet"
        found.append(CaptionRate(name, rate.per_second if rate else None, basis, "this store"))
    return found


def cluster_costs(
    rates: Sequence[CaptionRate],
    images: Sequence[int],
    *,
    gpus: int = 1,
    gpus_per_machine: int = 1,
    gpu_hour_price: float | None = None,
) -> list[ClusterCost]:
    """Each captioner over each number of images, on `gpus` GPUs at `gpu_hour_price` a GPU and hour.

    It is the captioning alone, with GPUs that never wait: no loading, no queue, no night without machines.
    """
    costs = []
    for rate in rates:
        for number in images:
            hours = number / rate.per_second / 3600 if rate.per_second else None
            days = hours / gpus / 24 if hours is not None else None
            price = hours * gpu_hour_price if hours is not None and gpu_hour_price is not None else None
            machines = hours / gpus_per_machine if hours is not None else None
            costs.append(ClusterCost(rate, number, hours, machines, days, price))
    return costs


def cluster_text(costs: Sequence[ClusterCost], *, gpus: int, gpu_hour_price: float | None) -> str:
    """For a terminal: a line for each captioner and number of images, then what the rates were measured on."""
    head = ["captioner", "captions/s a GPU", "images", "GPU hours", "machine hours", f"days on {counted(gpus, 'GPUs')}"]
    rows = [head + (["price"] if gpu_hour_price is not None else [])]
    notes: dict[str, str] = {}
    for cost in costs:
        rate = cost.rate
        mark = notes.setdefault(f"{rate.basis}{'; ' + rate.source if rate.source else ''}", f"[{len(notes) + 1}]")
        rows.append(
            [
                f"{rate.captioner} {mark}",
                f"{rate.per_second:,.2f}" if rate.per_second else "unknown",
                f"{cost.images:,}",
                *(_number(each) for each in (cost.gpu_hours, cost.machine_hours, cost.days)),
                *([_number(cost.price)] if gpu_hour_price is not None else []),
            ]
        )
    return "\n".join([*columns(rows, words=[0]), "", *(f"{mark} {text}" for text, mark in notes.items())])


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2g}" if value < 1 else f"{value:,.1f}"
