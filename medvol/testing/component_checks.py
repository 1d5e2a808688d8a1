"""What every component promises, whatever its role."""

from __future__ import annotations

import importlib.util
import inspect
import socket
import subprocess
import sys
import time
from typing import Any, NoReturn
from unittest import mock

from medvol.core.errors import InvalidComponentError
from medvol.core.registry import untyped_parameters
from medvol.core.specs import describe_component
from medvol.testing.contract import ContractViolation, require

HEAVY = ("torch", "transformers", "lightning", "SimpleITK")
_CHEAP_S = 0.5


def check_constructor_is_typed(component: Any) -> None:
    """Every constructor parameter is annotated, and there is neither ``*args`` nor ``**kwargs``."""
    untyped = untyped_parameters(type(component))
    require(
        not untyped,
        "constructor",
        "an annotation on every parameter",
        f"none on {', '.join(untyped)}",
        "annotate each one, so that it can be set from YAML",
    )


def check_constructor_keeps_settings(component: Any) -> None:
    """Every constructor parameter is kept under its own name, so that a checkpoint can say how it was made."""
    try:
        describe_component(component)
    except InvalidComponentError as error:
        raise ContractViolation(f"constructor: expected plain settings that are kept; {error}") from error


def check_constructor_is_offline(component: Any) -> None:
    """The constructor opens no connection."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise ContractViolation(
            "constructor: expected no use of the network; got a connection; to fix it, load at the first use"
        )

    with mock.patch.object(socket.socket, "connect", refuse), mock.patch.object(socket, "getaddrinfo", refuse):
        _construct_again(component)


def check_constructor_is_cheap(component: Any) -> None:
    """The constructor only stores settings."""
    start = time.process_time()
    _construct_again(component)
    taken = time.process_time() - start
    require(
        taken < _CHEAP_S,
        "constructor",
        f"less than {_CHEAP_S} s of processor time",
        f"{taken:.2f} s",
        "only store settings, and load at the first use",
    )


def check_module_is_light(component: Any) -> None:
    """Importing the component's module loads no heavy library, so that it can be described quickly."""
    module = type(component).__module__
    if module == "__main__" or importlib.util.find_spec(module.partition(".")[0]) is None:
        return
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    require(done.returncode == 0, f"module {module}", "that it can be imported", done.stderr[-300:], "mend the import")
    require(
        not done.stdout.strip(),
        f"module {module}",
        "no heavy import at its top",
        done.stdout.strip(),
        "import inside the functions that need it",
    )


def check_repr(component: Any) -> None:
    """``repr`` works and names the class."""
    shown = repr(component)
    name = type(component).__name__
    require(
        name in shown, "repr", f"a text with {name}", repr(shown), "drop the custom __repr__, or name the class in it"
    )


def _construct_again(component: Any) -> None:
    settings = {}
    for name in inspect.signature(type(component)).parameters:
        kept = getattr(component, f"_{name}", None)
        settings[name] = getattr(component, name, None) if kept is None else kept
    type(component)(**settings)


CHECKS = (
    check_constructor_is_typed,
    check_constructor_keeps_settings,
    check_constructor_is_offline,
    check_constructor_is_cheap,
    check_module_is_light,
    check_repr,
)
