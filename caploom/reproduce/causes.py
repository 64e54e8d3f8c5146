"""What is no longer as it was when an artifact was made: what could explain that it comes out otherwise now."""

from collections.abc import Iterable, Mapping

from caploom.reproduce.compare_files import changed_since
from caploom.reproduce.stages import STAGES, present_code_version
from caploom.storage.manifest import Manifest
from caploom.storage.store import Artifact, package_versions


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
        f"The code of {kind} has changed its results since: version {version} then, {present_code_version(kind)} now."
        for kind, version in then.items()
        if kind in STAGES and present_code_version(kind) != version
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
