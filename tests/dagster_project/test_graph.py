"""The asset graph does not change by accident; and loading it costs no heavy import."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg

from caploom.config.factory_config import DEMO_CONFIG
from dagster_project.definitions import definitions_of

SNAPSHOT = Path(__file__).with_name("graph_snapshot.json")


def graph_of(definitions):
    nodes, graph = {}, definitions.resolve_asset_graph()
    for key in definitions.resolve_all_asset_keys():
        node = graph.get(key)
        nodes[key.to_user_string()] = {
            "upstream": sorted(parent.to_user_string() for parent in node.parent_keys),
            "partitions": type(node.partitions_def).__name__ if node.partitions_def else None,
            "group": node.group_name,
            "checks": sorted(check.name for check in node.check_keys),
            "has_code_version": node.code_version is not None,
            "pools": sorted(node.pools or []),
        }
    return dict(sorted(nodes.items()))


def test_the_demos_graph_is_the_one_in_the_snapshot():
    """After an intended change: `python tests/dagster_project/test_graph.py` rewrites the snapshot."""
    assert graph_of(definitions_of(DEMO_CONFIG)) == json.loads(SNAPSHOT.read_text())


def test_dagster_finds_the_definitions_valid():
    dg.Definitions.validate_loadable(definitions_of(DEMO_CONFIG))


def test_loading_the_definitions_imports_nothing_heavy():
    heavy = {"torch", "transformers", "open_clip", "torchvision"}
    script = f"import sys, dagster_project.definitions as d; d.defs(); print(*({heavy} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert said.stdout.split() == []


def test_the_library_runs_without_dagster():
    script = (
        "import sys; sys.modules['dagster'] = None\n"
        "import caploom.cli, caploom.notebook.factory, caploom.reproduce.reproduce, caploom.tries.try_captioner\n"
        "from caploom.stages.registry import stages; stages()\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(graph_of(definitions_of(DEMO_CONFIG)), indent=2) + "\n")
