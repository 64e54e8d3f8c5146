"""Which pictures are no longer what they were: an image's identity is the hash of its file's bytes."""

from collections.abc import Iterable, Iterator

from caploom.common.progress import Progress
from caploom.images.decode import ImageFault, read_image_file
from caploom.reproduce.words import printable
from caploom.storage.records import image_identity
from caploom.storage.store import Artifact
from caploom.storage.tables import read_batches

_TABLES = {
    "raw_pairs": "pairs.parquet",
    "evaluation_pairs": "pairs.parquet",
    "classification_images": "images.parquet",
}


def image_changes(artifacts: Iterable[Artifact], progress: Progress) -> list[str]:
    """A sentence for each artifact whose images have changed or are gone, with their number and the first."""
    listing = [each for each in artifacts if each.manifest.kind in _TABLES]
    total = sum(int(each.manifest.summary["images"]) for each in listing)
    done, found = 0, []
    for artifact in listing:
        changed = []
        for image_id, path in _images(artifact):
            fault = _fault(image_id, path)
            if fault:
                changed.append(f"{printable(path)} {fault}")
            done += 1
            progress(done, max(total, done))
        if changed:
            where = artifact.manifest.address
            found.append(f"{where}: {len(changed):,} of its images are not what they were; the first: {changed[0]}.")
    return found


def _images(artifact: Artifact) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    path = artifact.folder / _TABLES[artifact.manifest.kind]
    if not path.is_file():
        return
    for batch in read_batches(path, ["image_id", "path"]):
        for row in batch.to_pylist():
            if row["path"] not in seen:
                seen.add(row["path"])
                yield row["image_id"], row["path"]


def _fault(image_id: str, path: str) -> str | None:
    try:
        data = read_image_file(path)
    except ImageFault as fault:
        return f"cannot be read any more ({printable(fault.reason)})"
    return None if image_identity(data) == image_id else "has other bytes than then"
