"""A lineage for people and other tools: as a tree, as Mermaid, as DOT, and as Markdown with a diagram."""

from collections.abc import Iterator

from caploom.common.text import markdown_line, seconds_text, terminal_text
from caploom.questions.lineage.groups import GroupedLineage, LineageGroup, grouped_lineage
from caploom.questions.lineage.lineage_graph import MADE, LineageGraph


def lineage_tree(graph: LineageGraph, *, fold: bool = True) -> str:
    """The lineage as a tree for a terminal; one line per family of shards unless `fold` is False.

    A part that occurs twice is printed once, and "see above" is printed for the second.
    """
    grouped = grouped_lineage(graph, fold=fold)
    root = graph.nodes[graph.root]
    lines = [terminal_text(f"{root.label}  {root.address}")]
    details = [*_details(grouped.groups[grouped.root]), f"data version {root.data_version}"]
    lines += [f"  {terminal_text(detail)}" for detail in details]
    for title, next_of in (("made from", grouped.sources), ("made into", grouped.made)):
        lines += ["", title if next_of.get(grouped.root) else f"{title} nothing"]
        lines += list(_branches(grouped, grouped.root, next_of, "", {grouped.root}))
    lines += _problems(graph)
    return "\n".join(lines)


def lineage_mermaid(graph: LineageGraph, *, fold: bool = True) -> str:
    """The lineage as a Mermaid flowchart."""
    grouped = grouped_lineage(graph, fold=fold)
    number = {key: f"n{index}" for index, key in enumerate(grouped.groups)}
    lines = ["flowchart LR"]
    for key, group in grouped.groups.items():
        words = "<br/>".join(_mermaid_text(part) for part in [group.title, *_details(group)])
        lines.append(f'    {number[key]}["{words}"]')
    lines += [f"    {number[source]} --> {number[made]}" for source, made in _edges(grouped)]
    lines.append("    classDef root stroke-width:3px")
    lines.append("    classDef gone stroke:#b00020,stroke-dasharray:4")
    lines.append(f"    class {number[grouped.root]} root")
    gone = [number[key] for key, group in grouped.groups.items() if group.first.problem]
    if gone:
        lines.append(f"    class {','.join(gone)} gone")
    return "\n".join(lines)


def lineage_dot(graph: LineageGraph, *, fold: bool = True) -> str:
    """The lineage in DOT, the language of Graphviz."""
    grouped = grouped_lineage(graph, fold=fold)
    number = {key: f"n{index}" for index, key in enumerate(grouped.groups)}
    lines = ["digraph lineage {", "    rankdir=LR;", '    node [shape=box, fontname="Helvetica"];']
    for key, group in grouped.groups.items():
        words = "\\n".join(_dot_text(part) for part in [group.title, *_details(group)])
        style = ", style=bold" if key == grouped.root else ", style=dashed" if group.first.problem else ""
        lines.append(f'    {number[key]} [label="{words}"{style}];')
    lines += [f"    {number[source]} -> {number[made]};" for source, made in _edges(grouped)]
    return "\n".join([*lines, "}"])


def lineage_markdown(graph: LineageGraph) -> str:
    """The lineage as Markdown: the two sides as nested lists, for pages without diagrams."""
    grouped = grouped_lineage(graph)
    root = graph.nodes[graph.root]
    lines = [f"**{markdown_line(root.label)}** `{root.address}`", ""]
    lines += [markdown_line(detail) + "  " for detail in _details(grouped.groups[grouped.root])]
    for title, next_of in (("Made from", grouped.sources), ("Made into", grouped.made)):
        lines += ["", f"**{title}**" if next_of.get(grouped.root) else f"**{title}** nothing", ""]
        lines += list(_items(grouped, grouped.root, next_of, 0, {grouped.root}))
    lines += [markdown_line(line) for line in _problems(graph)]
    return "\n".join(lines)


def _branches(
    grouped: GroupedLineage, key: str, next_of: dict[str, list[str]], indent: str, seen: set[str]
) -> Iterator[str]:
    others = next_of.get(key, [])
    for index, other in enumerate(others):
        last = index == len(others) - 1
        mark = f"{indent}{'└─' if last else '├─'} "
        if other in seen:
            yield terminal_text(f"{mark}{grouped.groups[other].name}  (see above)")
            continue
        seen.add(other)
        yield terminal_text(f"{mark}{_line(grouped.groups[other])}")
        yield from _branches(grouped, other, next_of, indent + ("   " if last else "│  "), seen)


def _items(
    grouped: GroupedLineage, key: str, next_of: dict[str, list[str]], depth: int, seen: set[str]
) -> Iterator[str]:
    for other in next_of.get(key, []):
        words = f"{grouped.groups[other].name} (see above)" if other in seen else _line(grouped.groups[other])
        yield f"{'  ' * depth}- {markdown_line(words)}"
        if other not in seen:
            seen.add(other)
            yield from _items(grouped, other, next_of, depth + 1, seen)


def _line(group: LineageGroup) -> str:
    if group.first.state != MADE:
        return f"{group.title}: {group.first.state.upper()} ({group.first.address}): {group.first.problem}"
    details = "; ".join(_details(group))
    changed = f"  CHANGED: {group.first.problem}" if group.first.problem else ""
    return f"{group.name}  {details}{changed}"


def _details(group: LineageGroup) -> list[str]:
    """A group's configuration, rows and time, with the seconds of all its artifacts."""
    if group.first.state != MADE:
        return [f"{group.first.state}: {group.first.problem}"]
    older = sum(not node.is_latest for node in group.nodes)
    versions = "" if not older else "an older version" if len(group.nodes) == 1 else f"{older:,} of older versions"
    made = f"{group.started}, {seconds_text(group.seconds)}"
    return [part for part in (group.first.configured, group.rows, made, versions) if part]


def _edges(grouped: GroupedLineage) -> Iterator[tuple[str, str]]:
    for made, sources in grouped.sources.items():
        for source in sources:
            yield source, made


def _problems(graph: LineageGraph) -> list[str]:
    lines = [
        f"{node.state if node.state != MADE else 'changed'}: {node.address}: {node.problem}" for node in graph.missing
    ]
    return [terminal_text(line) for line in (["", *lines, *graph.notes] if lines or graph.notes else [])]


def _mermaid_text(text: str) -> str:
    """Text in a quoted label, with characters that Mermaid or HTML would interpret as numeric references."""
    return "".join(
        character
        if character.isalnum() or character in " .,:;/()-_+=%" or ord(character) > 127
        else f"#{ord(character)};"
        for character in terminal_text(text).replace(";", ",")
    )


def _dot_text(text: str) -> str:
    return terminal_text(text).replace("\\", "\\\\").replace('"', '\\"')
