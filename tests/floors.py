"""The floors of the house, and who imports whom as the source says: for the layer test and the picture in docs."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "medvol"

FLOORS = (
    ("core",),
    ("terminal", "weights", "guarding", "pages"),
    ("imaging",),
    ("queries", "grounding"),
    ("datasets", "checking"),
    ("rollouts",),
    ("policies", "engines", "propagators", "rewards", "inference", "testing"),
    ("evaluation",),
    ("auditing", "planning", "training", "viewing"),
    ("cli",),
)
"""Rooms from the ground up: each imports only what lies on a lower floor."""

LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def room_of(module: str) -> str:
    """Room of a dotted module; empty for the package itself and for other packages."""
    first, *parts = module.split(".")
    return parts[0] if first == "medvol" and parts and parts[0] in LEVEL else ""


def module_of(path: Path) -> str:
    """Dotted module of a file; that of a package ends with its ``__init__``."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports, those of functions and of TYPE_CHECKING blocks too."""
    return set(_imported(ast.parse(path.read_text(encoding="utf-8"))))


def imported_rooms(path: Path) -> set[str]:
    """Other rooms that a file imports."""
    return {room_of(module) for module in imported_modules(path)} - {"", room_of(module_of(path))}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
