"""What is no longer as it was when an artifact was made: what could explain that it comes out otherwise now."""

from collections.abc import Iterable, Iterator, Mapping

from caploom.common.progress import Progress
from caploom.common.text import printable
from caploom.images.decode import ImageFault, read_image_file
from caploom.images.moves import Moves
from caploom.reproduce.differences import changed_since
from caploom.stages.registry import STAGES, load_stage
from caploom.storage.manifest import Manifest
from caploom.storage.records import image_identity
from caploom.storage.store import Artifact, package_versions
from caploom.storage.tables import read_batches


def input_changes(recorded: Manifest, ancestors: Mapping[str, Artifact], missing: Iterable[str]) -> list[str]:
    """Inputs that are gone, have other content than recorded, or whose files were changed after they were made."""
    found = [f"The input {address} is missing." for address in missing]
    for record in recorded.inputs:
        artifact = ancestors.get(record.address)
        if artifact is None:
            continue
        if artifact.data_version != record.data_version:
            found.append(
                f"The input {record.address} has other content (version {record.data_version} then, "
                f"{artifact.data_version} now)."
            )
        found += changed_since(artifact)
    return found


def code_changes(recorded: Manifest, ancestors: Mapping[str, Artifact]) -> list[str]:
    """Stages whose code makes other results by now, and so makes nothing of what was made before."""
    then = {each.kind: each.code_version for each in (*(a.manifest for a in ancestors.values()), recorded)}
    return [
        f"The code of {kind} has changed its results since: version {version} then, {now} now."
        for kind, version in then.items()
        if kind in STAGES and (now := load_stage(kind).code_version) != version
    ]


def other_circumstances(recorded: Manifest, made: Manifest | None) -> list[str]:
    """Another version of Caploom or of a package, another device."""
    present = made.packages if made is not None else package_versions()
    found = [
        f"{package}: {recorded.packages.get(package, 'none')} then, {present.get(package, 'none')} now."
        for package in sorted({*recorded.packages, *present})
        if recorded.packages.get(package) != present.get(package)
    ]
    if made is not None and made.caploom_version != recorded.caploom_version:
        found.append(f"caploom: {recorded.caploom_version} then, {made.caploom_version} now.")
    found += _threads(recorded, made)
    if made is not None and made.device != recorded.device:
        found.append(f"Device: {recorded.device} then, {made.device} now.")
    return found


def _threads(recorded: Manifest, made: Manifest | None) -> list[str]:
    """What there is to say of a training's threads; where they were not recorded, only beside another result."""
    now = made.summary.get("threads") if made is not None else None
    if made is None or now is None or recorded.summary.get("threads") == now:
        return []
    then = recorded.summary.get("threads")
    if then is None and made.data_version == recorded.data_version:
        return []
    return [f"Threads, on which sums depend: {then or 'a number that was not recorded'} then, {now} now."]


def image_changes(artifacts: Iterable[Artifact], progress: Progress, moves: Moves) -> list[str]:
    """A sentence for each artifact whose images have changed or are gone, with their number and the first."""
    listing = [each for each in artifacts if load_stage(each.manifest.kind).images is not None]
    total = sum(int(each.manifest.summary["images"]) for each in listing)
    done, found = 0, []
    for artifact in listing:
        changed = []
        for image_id, path in _images(artifact):
            path = moves.present(path)
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
    """Identity and path of each image that an artifact names."""
    seen: set[str] = set()
    path = artifact.folder / str(load_stage(artifact.manifest.kind).images)
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
