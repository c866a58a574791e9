"""The JSON Schema of a scenario file, made from the models, for editors. It knows shapes and words, no meaning.

After a change to the models: python -m testbed.scenario.schema > testbed/scenario.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from testbed.scenario.model import Scenario

ABOUT = "A scenario of testbed: hosts, the links between them, the programs they run and what must be true."


class _Generator(GenerateJsonSchema):
    """What is optional may be left out, which is not the same as null; defaults are for `testbed check --full`."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def schema() -> dict[str, Any]:
    """The schema, short forms included. The same models give the same bytes."""
    made = Scenario.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions = made["$defs"]
    for definition in definitions.values():
        for form in (definition, *definition.get("anyOf", ())):
            form.pop("title", None)
            form.pop("description", None)
    definitions["Program"]["oneOf"] = [{"required": ["run"]}, {"required": ["serve"]}]
    _host_with_its_program(definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "testbed scenario, format 1",
        "description": ABOUT,
        "patternProperties": {"^x-": {"description": "Anything: ignored, for anchors"}},
    }


def text() -> str:
    """The schema as it is shipped."""
    return json.dumps(_in_order(schema()), indent=1, ensure_ascii=False) + "\n"


def _in_order(part: Any, of_names: bool = False) -> Any:
    """Words of JSON Schema by the alphabet, names as the models have them: the same for every pydantic."""
    if isinstance(part, list):
        return [_in_order(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {key: _in_order(part[key], key == "properties") for key in (part if of_names else sorted(part))}


def _host_with_its_program(definitions: dict[str, Any]) -> None:
    """The short form of a host: its one program's keys beside its own, and then no `programs`."""
    host = next(form for form in definitions["Host"]["anyOf"] if "properties" in form)
    program = definitions["Program"]["properties"]
    host["properties"] = {**host["properties"], **program}
    host["dependentSchemas"] = {"programs": {"properties": dict.fromkeys(program, False)}}
    others = [key for key in program if key not in ("run", "serve")]
    either = {"anyOf": [{"required": ["run"]}, {"required": ["serve"]}]}
    host["dependentSchemas"].update(dict.fromkeys(others, either))


if __name__ == "__main__":
    print(text(), end="")
