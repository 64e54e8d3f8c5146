"""A step of a shear, as the YAML writes it: `first_sentence`, or `{max_tokens: 30}`."""

from typing import Any

from pydantic import Field, field_serializer, model_validator

from caploom.common.settings import Settings, current_name, nearest
from caploom.shearing.rule import bind_parameters
from caploom.shearing.rules import OLD_NAMES, RULES


class ShearStep(Settings):
    """One rule with its parameters. In the YAML a bare name, or a mapping whose first key is the rule."""

    rule: str
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_yaml(cls, value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"rule", "parameters"}:
            rule, parameters = OLD_NAMES.get(value["rule"], value["rule"]), value["parameters"]
        elif isinstance(value, str):
            rule, parameters = current_name("shear rule", value, OLD_NAMES), {}
        elif isinstance(value, dict) and value:
            (rule, main), *rest = value.items()
            rule = current_name("shear rule", rule, OLD_NAMES)
            if rule in RULES and not RULES[rule].main_parameter:
                raise ValueError(f'the rule "{rule}" takes no parameter: write it as a plain name')
            if rule in RULES:
                parameters = {RULES[rule].main_parameter: main, **dict(rest)}
        else:
            raise ValueError(f"{value!r} is not a rule; write a name or {{name: parameter}}; known: {', '.join(RULES)}")
        if rule not in RULES:
            raise ValueError(
                f'there is no shear rule "{rule}"; known: {", ".join(RULES)}{nearest(str(rule), list(RULES))}'
            )
        return {"rule": rule, "parameters": bind_parameters(rule, RULES[rule], parameters)}

    @field_serializer("rule")
    def _recorded_name(self, rule: str) -> str:
        """The name in fingerprints and stores, which no renaming may change."""
        return next((old for old, new in OLD_NAMES.items() if new == rule), rule)

    @field_serializer("parameters")
    def _recorded_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return RULES[self.rule].recorded(parameters)
