#!/usr/bin/env python3
"""Writes the types of the Python client, python/dinoserve/_api.py, from openapi/openapi.json.

`python3 openapi/python_types.py` writes the module; `--check` fails if the committed one is out of date.
"""

import json
import keyword
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULE = ROOT / "python/dinoserve/_api.py"
METHODS = ("get", "put", "post", "patch", "delete")
WIDTH = 116
HEAD = '''"""Options of the operations, and their answers. Made by openapi/python_types.py; run `make openapi`."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict
'''
# Options that Python has better types for than text.
OPTIONS = {
    "where": "Mapping[str, Any]",
    "metadata": "Mapping[str, Any]",
    "patch": "tuple[int, int]",
    "box": "tuple[float, float, float, float]",
    "head": 'int | Literal["mean", "max", "all"]',
}
# Options that are arguments of their own in the client, or choose a form that it does not read.
LEFT_OUT = {
    "create_embedding": {"tokens", "encoding_format"},
    "find_neighbors_of_item": {"id"},
    "make_bank": {"wait"},
    "add_to_bank": {"wait"},
    "segment_image": {"segmenter"},
    "train_segmenter": {"wait"},
    "put_items": {"id"},
    "train_probe": {"name", "wait"},
    "audit_gallery": {"wait"},
    "map_gallery": {"wait"},
}
# Options of pictures, which have no effect on numbers.
DRAWING = {"output", "upscale", "overlay", "colormap"}
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "object": "dict[str, Any]", "null": "None"}


def python_type(schema: dict) -> str:
    """The type of a value."""
    if "$ref" in schema:
        return '"' + schema["$ref"].rsplit("/", 1)[1] + '"'
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return union(python_type(part) for part in schema[key])
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return python_type(schema["allOf"][0])
    if "enum" in schema:
        return "Literal[" + ", ".join(json.dumps(name) for name in schema["enum"] if name is not None) + "]"
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        return union(python_type({**schema, "type": part}) for part in kind)
    if kind == "array":
        return f"list[{python_type(schema.get('items', {}))}]"
    return SCALARS[kind]


def union(parts) -> str:
    parts = list(dict.fromkeys(parts))
    # A name in quotes cannot be an operand of `|`.
    if any(part.startswith('"') for part in parts):
        return '"' + " | ".join(part.strip('"') for part in parts) + '"'
    return " | ".join(parts)


def members(schema: dict, schemas: dict) -> dict[str, tuple[dict, bool]]:
    """The members of an object with their schemas, and whether they are always there."""
    found = {}
    for part in schema.get("allOf", []):
        found |= members(part, schemas)
    if "$ref" in schema:
        found |= members(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas)
    # One of several objects has the members of one of them.
    for part in schema.get("oneOf", []) + schema.get("anyOf", []):
        found |= {name: (member, False) for name, (member, _) in members(part, schemas).items()}
    required = schema.get("required", [])
    found |= {name: (member, name in required) for name, member in schema.get("properties", {}).items()}
    return found


def answer(name: str, schema: dict, schemas: dict) -> str:
    found = members(schema, schemas)
    about = " ".join(schema.get("description", "").split())
    if not found:
        return f"{name} = {python_type(schema)}\n"
    types = {member: python_type(kind) for member, (kind, _) in found.items()}
    types = {member: text if found[member][1] else f"NotRequired[{text}]" for member, text in types.items()}
    if any(map(keyword.iskeyword, types)):
        # A member like `class` cannot be an attribute.
        lines = [f"{name} = TypedDict(", f'    "{name}",', "    {"]
        lines += [f'        "{member}": {text},' for member, text in types.items()]
        return "\n".join([*lines, "    },", ")", f'"""{about}"""']) + "\n"
    lines = [f"class {name}(TypedDict):", f'    """{about}"""' if len(about) < WIDTH - 10 else docstring(about), ""]
    lines += [f"    {member}: {text}" for member, text in types.items()]
    return "\n".join(lines) + "\n"


def docstring(text: str, indent: str = "    ") -> str:
    lines, line = [], indent + '"""'
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line.rstrip())
            line = indent
        line += word + " "
    lines.append(line.rstrip())
    return "\n".join(lines) + f'\n{indent}"""'


def options(operation: dict) -> str | None:
    """The options of an operation: its parameters that are neither in the path nor headers."""
    operation_id = operation["operationId"]
    left_out = LEFT_OUT.get(operation_id, set())
    parameters = [one for one in operation.get("parameters", []) if one["in"] == "query" and one["name"] not in left_out]
    if not parameters:
        return None
    name = "".join(word.capitalize() for word in operation_id.split("_"))
    drawing = [one for one in parameters if one["name"] in DRAWING]
    others = [one for one in parameters if one["name"] not in DRAWING]
    text = typed_dict(f"{name}Options(TypedDict, total=False)", f"Options of `{operation_id}`.", others)
    if drawing:
        about = f"Options of `{operation_id}` for a picture."
        text += "\n\n" + typed_dict(f"{name}ImageOptions({name}Options, total=False)", about, drawing)
    return text


def typed_dict(head: str, about: str, parameters: list[dict]) -> str:
    lines = [f"class {head}:", f'    """{about}"""', ""]
    for parameter in parameters:
        kind = OPTIONS.get(parameter["name"]) or python_type(parameter["schema"]).replace(" | None", "")
        lines.append(f"    {parameter['name']}: {kind}")
    return "\n".join(lines) + "\n"


def module(document: dict) -> str:
    schemas = document["components"]["schemas"]
    operations = [item[method] for item in document["paths"].values() for method in METHODS if method in item]
    # Schemas of bodies of requests are left out.
    answers = json.dumps([operation["responses"] for operation in operations])
    reached, waiting = set(), [name for name in schemas if f'/{name}"' in answers]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            text = json.dumps(schemas[name])
            waiting += [other for other in schemas if f'/{other}"' in text]
    # Aliases are values, so they come after the classes that they name.
    classes = [answer(name, schemas[name], schemas) for name in schemas if name in reached]
    parts = [text for text in classes if "TypedDict" in text]
    aliases = [text for text in classes if "TypedDict" not in text]
    parts += [text for operation in operations if (text := options(operation))]
    return HEAD + "\n\n" + "\n\n".join(parts) + ("\n\n" + "".join(aliases) if aliases else "")


def main() -> None:
    document = json.loads((ROOT / "openapi/openapi.json").read_text())
    text = module(document)
    if "--check" in sys.argv:
        if MODULE.read_text() != text:
            sys.exit(f"{MODULE} is out of date; run `make openapi`")
    else:
        MODULE.write_text(text)


if __name__ == "__main__":
    main()
