"""Where runs are mirrored to MLflow: `mlflow:` in the YAML."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from caploom.common.settings import Settings, resolve_path

_SCHEMES = ("http", "https", "sqlite", "file", "databricks")


class MlflowSettings(Settings):
    """An MLflow server or folder that recipes' runs are mirrored to; needs the extra `mlflow`."""

    tracking_uri: SecretStr = Field(
        description="`http(s)://...`, `sqlite:///runs.db`, or a folder. It may contain a password, and is never shown."
    )
    experiment: str = Field(min_length=1, description="Name of the experiment; created when missing.")

    @field_validator("tracking_uri", mode="before")
    @classmethod
    def _a_path_is_relative_to_the_yaml(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or not value:
            raise ValueError("write an address such as http://localhost:5000, sqlite:///runs.db or ./mlruns")
        if "://" not in value:
            return str(resolve_path(value, info))
        scheme = value.partition("://")[0]
        if scheme not in _SCHEMES:
            raise ValueError(
                f"an address begins with one of {', '.join(each + '://' for each in _SCHEMES)}, or is a folder"
            )
        file = value.removeprefix("sqlite:///")
        if file != value and not file.startswith("/"):
            return f"sqlite:///{resolve_path(file, info)}"
        return value

    @property
    def is_folder(self) -> bool:
        """Whether runs are stored as files in a folder."""
        uri = self.tracking_uri.get_secret_value()
        return "://" not in uri or uri.startswith("file:")

    @property
    def files_beside(self) -> str | None:
        """The folder of a database's files: next to it, because MLflow would use the current folder."""
        database = self.tracking_uri.get_secret_value().partition("sqlite:///")[2]
        return str(Path(database).with_suffix(".artifacts")) if database else None

    @property
    def shown(self) -> str:
        """The address without user, password and query, for people."""
        uri = self.tracking_uri.get_secret_value()
        if "://" not in uri:
            return str(Path(uri))
        parts = urlsplit(uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
