"""What a person looks at after a captioner has been through a shard."""

from collections import Counter
from typing import Any

import dagster as dg

from caploom.questions.caption_statistics import statistics_markdown, statistics_of_shards
from caploom.questions.gallery_rows import shard_gallery
from caploom.report.plots import caption_length_histogram
from caploom.stages.captions import read_captions
from caploom.stages.graph import Graph
from caploom.stages.raw_pairs import raw_lengths
from caploom.storage.store import Artifact
from dagster_project.markdown import gallery, picture


def captions_metadata(graph: Graph, captioner: str, artifact: Artifact) -> dict[str, Any]:
    """A gallery, the lengths beside the raw captions', openings, and words shared with the others."""
    shard = artifact.manifest.configuration["shard"]
    words = Counter(len(text.split()) for text in read_captions(artifact).column("text").to_pylist())
    lengths = caption_length_histogram(words, raw_lengths(graph, shard), f"{captioner}, {shard}")
    return {
        "gallery": gallery(shard_gallery(graph, shard, list(graph.config.captioners))),
        "lengths": picture(lengths, "words a caption"),
        "statistics": dg.MetadataValue.md(statistics_markdown(statistics_of_shards(graph, captioner, [shard]))),
    }
