"""Why an artifact cannot be made again."""

from caploom.errors import CaploomError


class NotReproducibleError(CaploomError):
    """An artifact's configuration cannot be put together again; the message says what is missing or has changed."""


class PlanDiffersError(CaploomError):
    """The stage would make something else than the manifest records; `differences` says what, a sentence each."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(" ".join(differences))
        self.differences = differences
