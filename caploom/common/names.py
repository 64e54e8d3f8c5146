"""Names that people give and that become folders, asset keys and partition keys."""

MOST_NAME_CHARACTERS = 100

NAME_PATTERN = rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MOST_NAME_CHARACTERS - 1}}}$"
"""Letters, digits, dot, underscore, hyphen: safe as a file name, an asset key and a partition key everywhere."""

RAW_SOURCE = "raw"
"""The `source` of a raw caption in a training set; no captioner may have this name."""
