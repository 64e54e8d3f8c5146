"""The YAML's `inbox`: which folders are watched, and when what lies in them is complete."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from caploom.common.settings import Settings
from caploom.storage.paths import UriOrPath


class InboxSettings(Settings):
    """Folders whose new images become shards by themselves."""

    folders: list[UriOrPath] = Field(min_length=1, description="Local folders, or URLs such as `s3://bucket/new`.")
    complete: Literal["stable", "marker"] = Field(
        default="stable",
        description="`stable`: a file is whole when its size and time stay the same for `settle_seconds`; `marker`: "
        "when its folder, or one above it in the inbox, holds the file `marker`.",
    )
    settle_seconds: NonNegativeFloat = Field(default=60, description="How long a file must stay as it is.")
    marker: str = Field(default="_SUCCESS", pattern=r"^[^/]+$", description="The file that says: this folder is whole.")
    caption_patience_seconds: NonNegativeFloat = Field(
        default=3600,
        description="How long an image waits for the `.txt` of its name; then it is a failed row without caption.",
    )
    gather_seconds: NonNegativeFloat = Field(
        default=120, description="How long the oldest complete file waits for others before a small shard is cut."
    )
    keep: Literal["copy", "reference"] = Field(
        default="copy",
        description="`copy`: the images' bytes go into the store, and the inbox may be emptied; `reference`: they are "
        "read where they lie, and must stay.",
    )
    files_per_tick: PositiveInt = Field(
        default=10_000, description="Files that one look at the inbox takes at most; the next look goes on."
    )
