"""The YAML's `alerts`: which faults a factory reports, and where. Secrets stay in the environment."""

import re
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, PositiveFloat, PositiveInt, model_validator
from pydantic_core import CoreSchema

from caploom.common.json_schema import JsonSchema, with_shorthands
from caploom.common.settings import Settings


class AlertKind(StrEnum):
    """Kinds of alerts."""

    RUN_FAILURE = "run_failure"
    CHECK_FAILURE = "check_failure"
    FRESHNESS = "freshness"
    INBOX = "inbox"


def _is_a_variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # The value is not repeated: it may be the secret itself.
        raise ValueError("write the name of an environment variable: its value is a secret, not for the YAML")
    return name


def _is_a_mail_address(text: str) -> str:
    if len(text) > 254 or not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", text):
        raise ValueError(f"{text!r} is not a mail address such as team@example.org")
    return text


Variable = Annotated[str, AfterValidator(_is_a_variable)]
"""The name of an environment variable, whose value is never written anywhere."""

Address = Annotated[str, AfterValidator(_is_a_mail_address)]


def _is_a_page(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not a web address: begin with http:// or https://")
    return url.rstrip("/")


class WebhookSettings(Settings):
    """A POST request to an address from the environment."""

    url_from_env: Variable = Field(
        default="CAPLOOM_ALERT_WEBHOOK", description="The environment variable with the address, which is a secret."
    )
    token_from_env: Variable | None = Field(
        default=None, description="The environment variable with a token, sent as `Authorization: Bearer ...`."
    )
    format: Literal["json", "slack"] = Field(
        default="json", description="`json`: everything, field by field; `slack`: a text, as Slack and Mattermost read."
    )
    timeout_seconds: PositiveFloat = Field(default=5, le=20, description="Timeout of one attempt.")
    retries: int = Field(default=1, ge=0, le=3, description="Immediate further attempts; later ticks try again.")


class EmailSettings(Settings):
    """Mail through an SMTP server."""

    to: list[Address] = Field(min_length=1, description="The recipients.")
    sender: Address = Field(description="The sender.")
    host: str = Field(min_length=1, description="The SMTP server.")
    port: PositiveInt = Field(default=587, le=65_535, description="Its port.")
    starttls: bool = Field(default=True, description="Whether the connection is encrypted.")
    user_from_env: Variable | None = Field(default=None, description="The environment variable with the user's name.")
    password_from_env: Variable | None = Field(default=None, description="The environment variable with the password.")
    timeout_seconds: PositiveFloat = Field(default=10, le=20, description="Timeout of each step.")

    @model_validator(mode="after")
    def _passwords_are_encrypted(self) -> Self:
        if (self.user_from_env is None) != (self.password_from_env is None):
            raise ValueError("user_from_env: name both it and password_from_env, or neither")
        if self.user_from_env is not None and not self.starttls:
            raise ValueError("starttls: a password is only sent over an encrypted connection: leave it on")
        return self


class AlertSettings(Settings):
    """Where alerts go: to the log unless that is switched off, and to the channels that are named."""

    log: bool = Field(default=True, description="A warning of the logger `caploom.alerts`, in the daemon's output.")
    webhook: WebhookSettings | None = Field(default=None, description="An HTTP endpoint, such as Slack's.")
    email: EmailSettings | None = Field(default=None, description="Mail.")
    on: list[AlertKind] = Field(default=list(AlertKind), description="The kinds that are reported.")
    ui_url: Annotated[str, AfterValidator(_is_a_page)] | None = Field(
        default=None, description="The UI's address, for links; by default the environment variable CAPLOOM_UI_URL."
    )
    attempts: PositiveInt = Field(
        default=20, description="Ticks (one per half minute) in which a channel is tried before its alerts are dropped."
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

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """`off` may stand for the mapping: for YAML 1.1 it is false, for the editors that read YAML 1.2 a word."""
        return with_shorthands(core_schema, handler, {"enum": [False, "off"]})

    @property
    def channels(self) -> list[str]:
        """The channels that are switched on."""
        return [name for name in ("log", "webhook", "email") if getattr(self, name)]
