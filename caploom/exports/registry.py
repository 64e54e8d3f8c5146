"""The export formats by name. Each is loaded when it is asked for."""

from importlib import import_module

from caploom.common.settings import nearest
from caploom.errors import ExportError
from caploom.exports.format import ExportFormat

_HERE = "caploom.exports"

EXPORTS: dict[str, str] = {
    "blip": f"{_HERE}.json_lists:Blip",
    "hf-imagefolder": f"{_HERE}.image_folder:ImageFolder",
    "open-clip-csv": f"{_HERE}.open_clip_table:OpenClipCsv",
    "open-clip-tsv": f"{_HERE}.open_clip_table:OpenClipTsv",
    "seed-json": f"{_HERE}.json_lists:SeedJson",
    "webdataset": f"{_HERE}.tar_shards:WebDataset",
}


def export_format(name: str) -> type[ExportFormat]:
    """The format of that name; raises `ExportError` listing the known ones when there is none."""
    if name not in EXPORTS:
        known = list(EXPORTS)
        raise ExportError(f'There is no export format "{name}"; known: {", ".join(known)}{nearest(name, known)}.')
    module, _, attribute = EXPORTS[name].partition(":")
    found: type[ExportFormat] = getattr(import_module(module), attribute)
    return found
