"""The YAML's `automation`: what a factory does automatically when new images arrive. Each part can be off."""

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from caploom.common.json_schema import Shorthand
from caploom.common.settings import Settings

_CRON_NAMES = {"hourly": "0 * * * *", "nightly": "0 2 * * *", "weekly": "0 2 * * 0"}


def _cron(text: str) -> str:
    """Turn `nightly` and the like into cron lines, and check cron lines."""
    from croniter import croniter

    line = _CRON_NAMES.get(text, text)
    if len(line.split()) != 5 or not croniter.is_valid(line):
        raise ValueError(f"{text!r} is not a time: write {', '.join(_CRON_NAMES)}, or a cron line such as 0 2 * * *")
    return line


Cron = Annotated[str, AfterValidator(_cron)]


class RetrainSettings(Settings):
    """When checkpoints are retrained on grown training sets."""

    when: Literal["by_hand", "schedule", "growth"] = Field(
        default="by_hand",
        description="`by_hand`: the UI shows what is outdated, and people materialize it; `schedule`: at the times "
        "of `cron`; `growth`: when the training set has grown by `growth_percent`.",
    )
    cron: Cron = Field(default="nightly", description="`hourly`, `nightly` (2:00), `weekly`, or a cron line.")
    growth_percent: PositiveFloat = Field(default=10, description="Growth since the last checkpoint.")
    recipes: list[str] | Literal["all"] = Field(default="all", description="The recipes that are retrained.")


class RetrySettings(Settings):
    """When images that a captioner failed on are retried; its `max_attempts` is the limit per image."""

    cron: Cron = Field(default="nightly", description="As in `retrain`.")
    shards_per_run: PositiveInt = Field(default=100, description="Maximum number of shards that one run retries.")


class AutomationSettings(Settings):
    """Which automations run; people can also switch each on and off in the UI, under its own name."""

    ingest: bool = Field(default=True, description="The inbox is watched, and its new shards are ingested.")
    caption: bool = Field(default=True, description="New shards go through all captioners.")
    merge: bool = Field(default=True, description="Sheared captions and training sets follow new captions.")
    report: bool = Field(default=True, description="The report follows new measurements.")
    retrain: RetrainSettings = Field(default_factory=RetrainSettings)
    retry_failures: Annotated[RetrySettings | None, Shorthand({"enum": [False, "off"]})] = Field(
        default_factory=RetrySettings, description="null: only by hand."
    )
    interval_seconds: PositiveInt = Field(default=30, description="Minimum time between two ticks of the daemon.")
    timezone: str = Field(default="UTC", description="Time zone of all times here, such as Europe/Berlin.")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {value!r}; write UTC, or one such as Europe/Berlin") from None
        return value

    @classmethod
    def off(cls) -> Self:
        """Nothing happens automatically: the default of a factory without an inbox."""
        return cls(ingest=False, caption=False, merge=False, report=False, retry_failures=None)

    @model_validator(mode="before")
    @classmethod
    def _off_is_false(cls, value: object) -> object:
        # YAML reads `off` as false.
        if isinstance(value, dict) and value.get("retry_failures") is False:
            return {**value, "retry_failures": None}
        return value
