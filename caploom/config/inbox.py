"""The YAML's `inbox`: which folders are watched, and when their files count as complete."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from caploom.common.settings import Settings
from caploom.storage.paths import UriOrPath


class InboxSettings(Settings):
    """Folders whose new images become shards automatically."""

    folders: list[UriOrPath] = Field(min_length=1, description="Local folders, or URLs such as `s3://bucket/new`.")
    complete: Literal["stable", "marker"] = Field(
        default="stable",
        description="`stable`: a file is complete when its size and time stay the same for `settle_seconds`; `marker`: "
        "when its folder, or one above it in the inbox, contains the file `marker`.",
    )
    settle_seconds: NonNegativeFloat = Field(default=60, description="How long a file must stay unchanged.")
    marker: str = Field(default="_SUCCESS", pattern=r"^[^/]+$", description="The file that marks a folder as complete.")
    caption_patience_seconds: NonNegativeFloat = Field(
        default=3600,
        description="How long an image waits for the `.txt` of its name before it is a failed row without a caption.",
    )
    gather_seconds: NonNegativeFloat = Field(
        default=120, description="How long the oldest complete file waits for others before a small shard is created."
    )
    keep: Literal["copy", "reference"] = Field(
        default="copy",
        description="`copy`: the images' bytes go into the store, and the inbox may be emptied; `reference`: they are "
        "read in place, and must stay.",
    )
    files_per_tick: PositiveInt = Field(
        default=10_000, description="Maximum number of files that one scan takes; the next scan continues."
    )
