"""The YAML's `alerts`: where a factory says what went wrong, and what of it. Secrets stay in the environment."""

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from caploom.common.settings import Settings


class AlertKind(StrEnum):
    """What alerts are of."""

    RUN_FAILURE = "run_failure"
    CHECK_FAILURE = "check_failure"
    FRESHNESS = "freshness"
    INBOX = "inbox"


def _is_a_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # Not repeated: somebody may have written the secret here.
        raise ValueError("write the name of an environment variable: what it holds is a secret and is not for the YAML")
    return name


def _is_a_mail_address(text: str) -> str:
    if len(text) > 254 or not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", text):
        raise ValueError(f"{text!r} is no mail address such as team@example.org")
    return text


Variable = Annotated[str, AfterValidator(_is_a_variable)]
"""The name of an environment variable: what it holds is never written anywhere."""

Address = Annotated[str, AfterValidator(_is_a_mail_address)]


def _is_a_page(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no address of a page: begin with http:// or https://")
    return url.rstrip("/")


class WebhookSettings(Settings):
    """A POST to an address that only the environment knows."""

    url_from_env: Variable = Field(
        default="CAPLOOM_ALERT_WEBHOOK", description="The environment variable that holds the address, a secret."
    )
    token_from_env: Variable | None = Field(
        default=None, description="The variable that holds a token, sent as `Authorization: Bearer ...`."
    )
    format: Literal["json", "slack"] = Field(
        default="json", description="`json`: everything, field by field; `slack`: a text, as Slack and Mattermost read."
    )
    timeout_seconds: PositiveFloat = Field(default=5, le=20, description="Of one attempt.")
    retries: int = Field(default=1, ge=0, le=3, description="Further attempts at once; later ticks try again.")


class EmailSettings(Settings):
    """Mail through an SMTP server."""

    to: list[Address] = Field(min_length=1, description="Who gets it.")
    sender: Address = Field(description="From whom it comes.")
    host: str = Field(min_length=1, description="The SMTP server.")
    port: PositiveInt = Field(default=587, le=65_535, description="Its port.")
    starttls: bool = Field(default=True, description="Whether the connection is encrypted.")
    user_from_env: Variable | None = Field(default=None, description="The environment variable with the user's name.")
    password_from_env: Variable | None = Field(default=None, description="The one with the password.")
    timeout_seconds: PositiveFloat = Field(default=10, le=20, description="Of each step of the conversation.")

    @model_validator(mode="after")
    def _passwords_are_encrypted(self) -> Self:
        if (self.user_from_env is None) != (self.password_from_env is None):
            raise ValueError("user_from_env: name both it and password_from_env, or neither")
        if self.user_from_env is not None and not self.starttls:
            raise ValueError("starttls: a password is sent over an encrypted connection alone: leave it on")
        return self


class AlertSettings(Settings):
    """Where alerts go: to the log unless that is switched off, and to what else is named."""

    log: bool = Field(default=True, description="A warning of the logger `caploom.alerts`, in the daemon's output.")
    webhook: WebhookSettings | None = Field(default=None, description="An HTTP endpoint, such as Slack's.")
    email: EmailSettings | None = Field(default=None, description="Mail.")
    on: list[AlertKind] = Field(default=list(AlertKind), description="What is told.")
    ui_url: Annotated[str, AfterValidator(_is_a_page)] | None = Field(
        default=None, description="Where the UI is reached, for links; the variable CAPLOOM_UI_URL where it is not set."
    )
    attempts: PositiveInt = Field(
        default=20, description="Looks (one in half a minute) in which a channel is tried before it is given up."
    )

    @model_validator(mode="before")
    @classmethod
    def _on_and_off_are_words(cls, value: object) -> object:
        # YAML reads the key `on` as true, and `off` as false.
        if value is False:
            return {"log": False}
        if isinstance(value, dict) and True in value:
            return {("on" if key is True else key): each for key, each in value.items()}
        return value

    @property
    def channels(self) -> list[str]:
        """What is switched on."""
        return [name for name in ("log", "webhook", "email") if getattr(self, name)]
