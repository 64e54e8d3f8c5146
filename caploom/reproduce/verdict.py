"""What came of making an artifact again, as text for people."""

from caploom.common.text import printable
from caploom.reproduce.reproduce import Reproduction
from caploom.stages.artifact_names import label_of

_SHOWN = 20


def verdict_text(result: Reproduction) -> str:
    """The verdict in its first line, then what differs and what could explain it, a line each."""
    lines = [f"{label_of(result.address)}: {_verdict(result)}", f"  {result.address}"]
    for each in result.files:
        if each.sameness != "identical":
            lines.append(f"  {each.name}: {each.detail}.")
    lines += _listed("What differs:" if result.outcome == "different" else "Why:", result.differences)
    heading = "What is no longer as it was:" if result.outcome in ("different", "not made") else "And yet:"
    lines += _listed(heading, result.causes)
    if result.outcome == "different" and not result.causes:
        lines.append("Nothing that the manifest records has changed; the stage itself does not give the same twice.")
    lines += _listed("The original is not what was made then:", result.damage)
    return "\n".join(printable(line) for line in lines)


def _verdict(result: Reproduction) -> str:
    identical = sum(each.sameness == "identical" for each in result.files)
    took = f"rebuilt in {result.seconds:.1f} s (then: {result.then_seconds:.1f} s)"
    match result.outcome:
        case "byte-identical" if not result.files:
            return f"byte-identical: it has no files, and its manifest says the same; {took}."
        case "byte-identical":
            return f"byte-identical: {_files(identical)}; {took}."
        case "identical but for measured times":
            return f"identical but for measured times: {identical} of {_files(len(result.files))} to the byte; {took}."
        case "different":
            return f"different: {identical} of {_files(len(result.files))} byte-identical; {took}."
        case _:
            return "it could not be rebuilt."


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _listed(heading: str, sentences: list[str]) -> list[str]:
    if not sentences:
        return []
    more = [f"  and {len(sentences) - _SHOWN} more"] if len(sentences) > _SHOWN else []
    return [heading, *(f"  {sentence}" for sentence in sentences[:_SHOWN]), *more]
