"""Why a channel did not accept an alert, and the secrets that channels need."""

import os


class ChannelFault(Exception):
    """A channel did not accept an alert; its sentence contains no secret. `passing`: an immediate retry may help."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


def secret(variable: str) -> str:
    """The value of an environment variable; raises `ChannelFault` when it is not set."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ChannelFault(f"The environment variable {variable} is not set where the daemon's code server runs.")
    return value
