"""The export formats by name. Each is loaded on demand."""

from importlib import import_module

from caploom.common.settings import current_name, nearest
from caploom.errors import ExportError
from caploom.exports.format import ExportFormat

_HERE = "caploom.exports"

EXPORTS: dict[str, str] = {
    "blip": f"{_HERE}.json_lists:Blip",
    "hf-imagefolder": f"{_HERE}.image_folder:ImageFolder",
    "open-clip-csv": f"{_HERE}.open_clip_table:OpenClipCsv",
    "open-clip-tsv": f"{_HERE}.open_clip_table:OpenClipTsv",
    "released-json": f"{_HERE}.json_lists:ReleasedJson",
    "webdataset": f"{_HERE}.tar_shards:WebDataset",
}
_OLD_NAMES = {"seed-json": "released-json"}


def format_name(name: str) -> str:
    """The present name of an export format; an old name warns."""
    return current_name("export format", name, _OLD_NAMES)


def export_format(name: str) -> type[ExportFormat]:
    """The format with that present name; raises `ExportError` listing the known ones when there is none."""
    if name not in EXPORTS:
        known = list(EXPORTS)
        raise ExportError(f'There is no export format "{name}"; known: {", ".join(known)}{nearest(name, known)}.')
    module, _, attribute = EXPORTS[name].partition(":")
    found: type[ExportFormat] = getattr(import_module(module), attribute)
    return found
