#!/usr/bin/env python3
"""Writes docs/api.md from openapi/openapi.json.

`python3 openapi/api_md.py` writes the page; `--check` fails if the committed page is out of date.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
METHODS = ("get", "put", "post", "patch", "delete")
SHARED = {"401", "403", "429", "431", "4XX", "5XX"}
TITLES = {"features": "Features", "gallery": "Galleries", "server": "Server"}


def one_line(text):
    return " ".join((text or "").split())


def cell(text):
    return one_line(text).replace("|", "\\|")


def type_of(schema):
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            kinds = [type_of(part) for part in schema[key] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        kind = " or ".join(part for part in kind if part != "null")
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return kind


def values_of(schema):
    """Type, or the allowed values with the default first, and the range."""
    default = schema.get("default")
    if "enum" in schema:
        names = [name for name in schema["enum"] if name is not None]
        if default in names:
            names.remove(default)
            return ", ".join([f"**`{default}`**"] + [f"`{name}`" for name in names])
        return ", ".join(f"`{name}`" for name in names)
    text = type_of(schema)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        text += f" {low} to {high}"
    elif low is not None:
        text += f" from {low}"
    if default is not None:
        text += f", **`{json.dumps(default)}`**"
    return text


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def operation(path, method, entry, schemas):
    parts = [f"### `{method.upper()} {path}`", f"**{one_line(entry.get('summary'))}**"]
    if entry.get("description"):
        parts.append(one_line(entry["description"]))
    parameters = entry.get("parameters", [])
    if parameters:
        rows = [
            [
                f"`{parameter['name']}`" + (f" ({parameter['in']})" if parameter["in"] != "query" else ""),
                values_of(parameter.get("schema", {})),
                cell(parameter.get("description")),
            ]
            for parameter in parameters
        ]
        parts.append(table(["option", "values (default in bold)", "meaning"], rows))
    body = entry.get("requestBody", {}).get("content", {})
    if body:
        kinds = []
        for media, content in sorted(body.items()):
            name = type_of(content.get("schema", {}))
            link = f" ([{name}](#{name.lower()}))" if name in schemas and name != "File" else ""
            kinds.append(f"`{media}`{link}")
        parts.append("Body: " + ", ".join(kinds) + ".")
    rows = []
    for status, response in sorted(entry.get("responses", {}).items()):
        if status in SHARED:
            continue
        names = dict.fromkeys(
            type_of(content.get("schema", {})) for content in response.get("content", {}).values()
        )
        links = [
            f"[{name}](#{name.lower()})" for name in names if name in schemas and name != "File"
        ]
        rows.append([status, cell(response.get("description")), ", ".join(links)])
    parts.append(table(["status", "answer", "JSON"], rows))
    return "\n\n".join(parts)


def fields_of(schema):
    """Fields of an object, those of flattened parts included."""
    for part in schema.get("allOf", []):
        if "$ref" not in part:
            yield from fields_of(part)
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        yield name, field, name in required


def described(entry):
    """The description of a member; of one that may be null, that of its other form."""
    forms = [entry, *entry.get("oneOf", [])]
    return next((form["description"] for form in forms if form.get("description")), None)


def definition(name, schema):
    parts = [f"### {name}"]
    if schema.get("description"):
        parts.append(one_line(schema["description"]))
    flattened = [type_of(part) for part in schema.get("allOf", []) if "$ref" in part]
    if flattened:
        links = ", ".join(f"[{part}](#{part.lower()})" for part in flattened)
        parts.append(f"All fields of {links}, and:")
    rows = [
        [
            f"`{field}`" + ("" if required else " (optional)"),
            values_of(entry),
            cell(described(entry)),
        ]
        for field, entry, required in fields_of(schema)
    ]
    if rows:
        parts.append(table(["field", "type", "meaning"], rows))
    elif "enum" in schema:
        parts.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    elif "oneOf" in schema or "anyOf" in schema:
        parts.append(f"{type_of(schema)}.")
    return "\n\n".join(parts)


def render(document):
    schemas = document["components"]["schemas"]
    parts = [
        "# HTTP API",
        "<!-- Made by openapi/api_md.py from openapi/openapi.json. Run `make openapi`. -->",
        one_line(document["info"]["description"]),
        "Image endpoints take one image as the raw body (options in the query), one or more files "
        "as `multipart/form-data` (options as fields or in the query), or JSON with base64 or "
        "`data:` URIs (options as further fields).",
        "Errors are `application/problem+json` ([Problem](#problem)). Every operation may also "
        "answer 401, 403 and 429 for its API key, 431 for a request head that is too large, 503 "
        "under load with `Retry-After`, and 504 after `--request-timeout`.",
    ]
    for tag, title in TITLES.items():
        parts.append(f"## {title}")
        for path, item in document["paths"].items():
            for method in METHODS:
                entry = item.get(method)
                if entry and tag in entry.get("tags", []):
                    parts.append(operation(path, method, entry, schemas))
    parts.append("## JSON types")
    for name, schema in sorted(schemas.items()):
        if name != "File":
            parts.append(definition(name, schema))
    return "\n\n".join(parts) + "\n"


def main():
    page = render(json.loads((ROOT / "openapi/openapi.json").read_text()))
    path = ROOT / "docs/api.md"
    if "--check" in sys.argv:
        if not path.exists() or path.read_text() != page:
            sys.exit("docs/api.md is out of date: run `make openapi`")
        return
    path.write_text(page)


if __name__ == "__main__":
    main()
