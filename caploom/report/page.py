"""The report's page: one HTML file, readable without other files, scripts or a network."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from caploom.report.sections import Cell, Content
from caploom.stages.artifact_names import artifact_label
from caploom.storage.store import Artifact

_TEMPLATES = "caploom.report"


def html_report(content: Content) -> str:
    """The whole page. Captions, names and file contents are shown as text: the template escapes them."""
    folder = files(_TEMPLATES) / "templates"
    known = {artifact.manifest.address for artifact in content.artifacts}
    return _template().render(
        content=content,
        known=known,
        style=Markup((folder / "report.css").read_text(encoding="utf-8")),
        script=Markup((folder / "report.js").read_text(encoding="utf-8")),
        drawing=Markup,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(_TEMPLATES, "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"anchor": _anchor, "label": lambda artifact: artifact_label(artifact.manifest)}
    environment.tests |= {"linked": lambda cell: isinstance(cell, Cell) and cell.artifact is not None}
    return environment.get_template("report.html")


def _anchor(artifact: Artifact | str) -> str:
    address = artifact if isinstance(artifact, str) else artifact.manifest.address
    return "artifact-" + address.replace("/", "-")
