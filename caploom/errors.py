"""The error tree: what a user can cause is a `CaploomError` whose sentence says what is wrong and what to do."""


class CaploomError(Exception):
    """Base of every error that a person can fix; its message is shown without a traceback."""


class ConfigError(CaploomError):
    """The factory's YAML is wrong: the message names the file, the key's path, the value and what is allowed."""


class SourceError(CaploomError):
    """A whole source of pairs cannot be read (a single bad row is a failure row instead, never this error)."""


class StoreError(CaploomError):
    """An artifact is missing, unfinished or damaged in the store."""


class MissingArtifactError(StoreError):
    """An artifact that this stage reads has not been made yet; the message names it and the command that makes it."""


class CaptionerError(CaploomError):
    """A captioner's model cannot be loaded or used (a single failing image is a failure row instead)."""


class ClusterError(CaploomError):
    """A cluster cannot be reached or used as the YAML asks."""


class CanaryError(CaptionerError):
    """A captioner's output for a batch differs from its output for the same images one by one."""


class TrainingError(CaploomError):
    """Training cannot start or continue: no usable rows, an unknown architecture, a loss that is not a number."""


class EvaluationError(CaploomError):
    """Retrieval cannot be measured: an image without captions, embeddings with NaN, K above the candidates."""


class ExportError(CaploomError):
    """A training set cannot be exported: an unknown format or option, a folder that is not empty, nothing left."""


class ImageFault(Exception):
    """Why one image cannot be used: `reason` is a short word to count by, `detail` one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
