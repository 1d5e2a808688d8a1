"""The document: one HTML file that holds its own styles, scripts and data, and that asks nothing of a network."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medvol.core.visible_text import show

_HERE = Path(__file__).parent

MARK = '<meta name="generator" content="medvol '
"""Stands near the beginning of every document of ours."""


def render_document(
    template: str,
    scripts: Sequence[str],
    values: Mapping[str, Any],
    late_scripts: Sequence[bytes] = (),
    styles: Sequence[str] = ("page.css",),
) -> str:
    """Render a template; the same values always give the same text.

    Every value is escaped. The page's content security policy lets it run the scripts that are named here, use its own
    styles and the pictures that it holds, and nothing else: no request leaves it.

    Args:
        template: A file of ``templates/`` that extends ``document.html``.
        scripts: Files of ``assets/`` that run when the page opens, in this order; all of them become one script.
        values: What the template shows, as plain data.
        late_scripts: Scripts that the page itself adds later, to the letter.
        styles: Files of ``assets/`` that style it, in this order.
    """
    style = "\n".join(read_asset(name).decode() for name in styles)
    script = "\n".join(read_asset(name).decode() for name in scripts)
    allowed = " ".join(map(_source, [script.encode(), *late_scripts]))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style.encode())}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(values, style=style, script=script, policy=policy)


@cache
def read_asset(name: str) -> bytes:
    """A file of ``assets/``, with the line ends that a browser counts."""
    return (_HERE / "assets" / name).read_bytes().replace(b"\r\n", b"\n")


def in_base64(data: bytes) -> str:
    """Bytes as text that needs no escape in HTML."""
    return b64encode(data).decode("ascii")


def show_json(content: Any) -> str:
    """JSON for people: text of any script stays readable, and what steers a display is written as an escape."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    return "".join(_escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter if letter == "\n" or show(letter) == letter else json.dumps(letter)[1:-1]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = in_base64
    environment.filters["visible"] = lambda text: show(text, keep="\n")
    return environment


def _source(code: bytes) -> str:
    """A script or a style sheet, as a content security policy names it."""
    return f"'sha256-{in_base64(hashlib.sha256(code).digest())}'"
