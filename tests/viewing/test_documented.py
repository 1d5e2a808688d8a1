"""docs/how-to/view.md: its interface is the one that is served, and its examples are what comes back."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from medvol.viewing.interface import Interface
from tests.viewing.conftest import Api, make_desk

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "view.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^`([A-Z]+) (api/\S+)`\n\n```json\n(.*?)```\n\n```json\n(.*?)```", re.MULTILINE | re.DOTALL)


def test_every_route_is_documented_and_no_other(answers: Path) -> None:
    app = Interface(make_desk(answers), None).build("key")
    served = {(method, route.path[1:]) for route in app._app.routes for method in route.methods - {"HEAD"}}
    documented = set(re.findall(r"^\| `([A-Z]+) (api/[^`]+)`", PAGE, re.MULTILINE))
    assert documented == {row for row in served if row[1].startswith("api/")}


def test_examples_come_back_as_documented(api: Api) -> None:
    examples = EXAMPLE.findall(PAGE)
    assert len(examples) == 4
    for method, path, body, expected in examples:
        opened = api.first("the block")
        link = path.replace("{answer}", opened["id"])
        sent = json.loads(body.replace("{parent}", opened["current"]["sha256"]))
        if "12, 6, 12, 18" in body:
            received = api.client.request(method, link, json=sent)
            assert received.status_code == 422
            assert set(received.json()["error"]) == set(json.loads(expected)["error"])
        else:
            received = api.client.request(method, link, json=sent)
            assert shape(received.json()) == shape(json.loads(expected)), (method, path)


def shape(content: Any) -> Any:
    """Keys and kinds of a JSON value."""
    if isinstance(content, dict):
        return {key: shape(value) for key, value in content.items()}
    return type(content).__name__


def test_the_documented_function_unpacks_a_mask(api: Api) -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None
    space: dict[str, Any] = {}
    exec(code[1], space)
    mask = api.first("the block")["original"]["mask"]
    whole = space["unpack"](mask, (12, 30, 40))
    assert whole.sum() == 3 * 12 * 20
    assert np.argwhere(whole).min(axis=0).tolist() == [2, 6, 10]
