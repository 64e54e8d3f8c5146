"""A step of a shear, as the YAML writes it: `first_sentence`, or `{max_tokens: 30}`."""

import inspect
from typing import Any

from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, field_serializer, model_validator
from pydantic_core import CoreSchema

from caploom.common.json_schema import JsonSchema, closed_object
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

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """A step as the YAML has it: a rule's name, or its name and parameters."""
        given = handler(core_schema)
        own = handler.resolve_ref_schema(given)
        about = {key: own[key] for key in ("title", "description")}
        own.clear()
        own.update({**about, "anyOf": [{"enum": _bare_rules()}, *_rules_with_parameters()]})
        return given

    @field_serializer("rule")
    def _recorded_name(self, rule: str) -> str:
        """The name in fingerprints and stores, which no renaming may change."""
        return next((old for old, new in OLD_NAMES.items() if new == rule), rule)

    @field_serializer("parameters")
    def _recorded_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return RULES[self.rule].recorded(parameters)


def _parameters(rule: str) -> dict[str, inspect.Parameter]:
    """A rule's parameters by their keys in the YAML, where the main one is called like the rule."""
    main = RULES[rule].main_parameter
    parameters = inspect.signature(RULES[rule].function).parameters.values()
    return {
        rule if one.name == main else one.name: one
        for one in parameters
        if one.name != "text" and one.kind is not one.KEYWORD_ONLY
    }


def _bare_rules() -> list[str]:
    """The rules that need no parameter."""
    known = [*RULES, *OLD_NAMES]
    needing = {rule for rule in RULES for one in _parameters(rule).values() if one.default is one.empty}
    return [name for name in known if OLD_NAMES.get(name, name) not in needing]


def _rules_with_parameters() -> list[JsonSchema]:
    mappings = []
    for name in [*RULES, *OLD_NAMES]:
        rule = OLD_NAMES.get(name, name)
        if RULES[rule].main_parameter:
            values = {
                name if key == rule else key: TypeAdapter(one.annotation).json_schema()
                for key, one in _parameters(rule).items()
            }
            mappings.append(closed_object(values, [name]))
    return mappings
