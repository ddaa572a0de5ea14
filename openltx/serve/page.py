"""The OpenAPI document as one HTML page: no scripts, nothing from elsewhere."""

from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
code, h2 { font-family: ui-monospace, monospace } h2 { font-size: 1.05rem; margin: 2.5rem 0 .3rem }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #8884 }
"""


def page(document: dict[str, Any]) -> str:
    """Every operation with its parameters and fields."""
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
        f"<p>{escape(document['info'].get('description', ''))} The same for programs: "
        f'<a href="/openapi.json">openapi.json</a>.</p>{"".join(operations)}</body></html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        (f"{parameter['name']} ({parameter['in']})", _kind(parameter["schema"]), parameter.get("description", ""))
        for parameter in operation.get("parameters", [])
    ]
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        if media_type == "application/json" or not rows:
            fields = content["schema"].get("properties", {})
            rows += [(name, _kind(field), field.get("description", "")) for name, field in fields.items()]
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "<tr><th>field</th><th>type</th><th>meaning</th></tr>"
    return (
        f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
        f"{f'<table>{head}{table}</table>' if rows else ''}"
    )


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: "integer", "number or list of number", "one of exact, pad"."""
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(option) for option in options if option.get("type") != "null"))
    if values := schema.get("enum"):
        return f"one of {', '.join(map(str, values))}"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return schema.get("format") or schema.get("type", "")
