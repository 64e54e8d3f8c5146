"""In words, how what a stage would make now differs from what a manifest records."""

import json
from collections.abc import Iterator
from typing import Any

from caploom.reproduce.words import quoted
from caploom.storage.manifest import Manifest
from caploom.storage.store import Plan

_ABSENT = object()
_SHOWN = 5


def plan_differences(plan: Plan, recorded: Manifest) -> list[str]:
    """A sentence for each difference; none when the plan's fingerprint is the recorded one."""
    if plan.fingerprint == recorded.fingerprint:
        return []
    found = []
    if plan.code_version != recorded.code_version:
        found.append(
            f"The stage's code has changed its results since: code version {recorded.code_version} then, "
            f"{plan.code_version} now."
        )
    settings = list(changed_values(recorded.configuration, _as_recorded(plan)))
    found += [f"The configuration's {key} was {then}, and is {now} now." for key, then, now in settings[:_SHOWN]]
    if len(settings) > _SHOWN:
        found.append(f"{len(settings) - _SHOWN} further values of the configuration differ.")
    then = {record.address: record.data_version for record in recorded.inputs}
    now = {record.address: record.data_version for record in plan.inputs}
    found += [f"It was made from {address}, and would not be now." for address in then if address not in now][:_SHOWN]
    found += [f"It would be made from {address}, and was not then." for address in now if address not in then][:_SHOWN]
    found += [
        f"The input {address} had the content {version}, and has {now[address]} now."
        for address, version in then.items()
        if now.get(address, version) != version
    ][:_SHOWN]
    if not found and list(then) != list(now):
        found.append("Its inputs stand in another order.")
    return found


def only_code_differs(plan: Plan, recorded: Manifest) -> bool:
    """Whether a plan says the same as the manifest, but for the code version at most."""
    return _as_recorded(plan) == recorded.configuration and list(plan.inputs) == recorded.inputs


def changed_values(before: Any, after: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """The places in which two JSON values differ: key's path, and both values, shortened and safe to print."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            place = f"{key}.{name}" if key else str(name)
            yield from changed_values(before.get(name, _ABSENT), after.get(name, _ABSENT), place)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from changed_values(one, other, f"{key}[{number}]")
    elif type(before) is not type(after) or before != after:
        yield key or "value", _shown(before), _shown(after)


def _as_recorded(plan: Plan) -> Any:
    return json.loads(json.dumps(plan.configuration))


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else quoted(value)
