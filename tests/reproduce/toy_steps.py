"""Two steps that declare no more than they must: one of a recipe, and one of all recipes and shards."""

from caploom.stages.graph import Graph
from caploom.stages.stage import Key, Making, Ref, Stage
from caploom.storage.store import Draft


def _list_inputs(making: Making, draft: Draft) -> None:
    lines = (f"{each.manifest.kind} {each.data_version}" for each in making.inputs())
    (draft.folder / "inputs.txt").write_text("\n".join(lines))


def _of_all(graph: Graph, key: Key) -> list[Ref]:
    return [Ref(kind, each) for kind in ("toy", "raw_pairs") for each in graph.keys(kind)]


TOY = Stage(
    kind="toy",
    code_version="1",
    axes=("recipe",),
    keys=lambda graph: [(name,) for name, recipe in graph.recipes.items() if recipe.evaluation_sets],
    settings=lambda graph, key: {"sets": list(graph.recipe(key[0]).evaluation_sets)},
    build=_list_inputs,
    inputs=lambda graph, key: [Ref("training_set", key), Ref("retrieval_metrics", key)],
)

TOYS = Stage(
    kind="toys",
    code_version="1",
    axes=(),
    keys=lambda graph: [()],
    build=_list_inputs,
    inputs=_of_all,
)
