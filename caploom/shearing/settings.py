"""A step of a shear, as the YAML writes it: `first_sentence`, or `{max_tokens: 30}`."""

from typing import Any

from pydantic import Field, model_validator

from caploom.common.settings import Settings, nearest
from caploom.shearing.rules import RULES, bind


class ShearStep(Settings):
    """One rule with its parameters. In the YAML a bare name, or a mapping whose first key is the rule."""

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"rule", "parameters"}:
            rule, parameters = value["rule"], value["parameters"]
        elif isinstance(value, str):
            rule, parameters = value, {}
        elif isinstance(value, dict) and value:
            (rule, main), *rest = value.items()
            if rule in RULES and not RULES[rule].main_parameter:
                raise ValueError(f'the rule "{rule}" takes no parameter: write it as a plain name')
            if rule in RULES:
                parameters = {RULES[rule].main_parameter: main, **dict(rest)}
        else:
            raise ValueError(f"{value!r} is no rule; write a name or {{name: parameter}}; known: {', '.join(RULES)}")
        if rule not in RULES:
            raise ValueError(
                f'there is no shear rule "{rule}"; known: {", ".join(RULES)}{nearest(str(rule), list(RULES))}'
            )
        return {"rule": rule, "parameters": bind(rule, parameters)}
