"""The service's description as a plain page: what /openapi.json says, without a script or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem;
color-scheme: light dark }
h2 { font-family: ui-monospace, monospace; font-size: 1.05rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #8884; padding: .2rem .6rem .2rem 0;
text-align: left; vertical-align: top } code { font-family: ui-monospace, monospace }"""


def page(description: Mapping[str, Any]) -> str:
    """Return an OpenAPI description as HTML."""
    info = description["info"]
    body = "".join(_operation(path, found["get"]) for path, found in description["paths"].items() if "get" in found)
    title = escape(info["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{escape(info.get('summary', ''))} "
        f"For programs: <a href=openapi.json>openapi.json</a>.</p>{body}</html>"
    )


def _operation(path: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(_rows(operation))
    return f"<h2>GET {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p><table>{rows}</table>"


def _rows(operation: Mapping[str, Any]) -> Iterator[str]:
    for each in operation.get("parameters", ()):
        schema = each["schema"]
        name = f"<code>{escape(each['name'])}</code>"
        words = [
            each.get("description", ""),
            f"Default {schema['default']}." if schema.get("default") not in (None, "") else "",
        ]
        yield f"<tr><td>{name}<td>{escape(each['in'])}<td>{escape(' '.join(filter(None, words)))}"
    for status, answer in operation["responses"].items():
        kinds = ", ".join(answer.get("content", ()))
        yield f"<tr><td><code>{escape(status)}</code><td>{escape(kinds)}<td>{escape(answer.get('description', ''))}"
