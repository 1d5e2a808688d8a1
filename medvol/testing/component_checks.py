"""What every component promises, whatever its role."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NoReturn
from unittest.mock import patch

from medvol.core.errors import CheckpointError, InvalidComponentError
from medvol.core.registry import untyped_parameters
from medvol.core.specs import describe_component, rebuild
from medvol.guarding.snapshots import changed, locked, snapshot

HEAVY = ("torch", "transformers", "lightning", "SimpleITK")
"""Libraries that take a second to import; a component's module imports them inside its functions."""
_CHEAP_S = 0.5


def require(holds: bool, expected: str, got: object, mend: str) -> None:
    """Fail with what was expected, what came, and how to mend it."""
    if not holds:
        raise AssertionError(f"expected {expected}; got {got}; {mend}")


def require_untouched(call: Callable[[], object], **given: Any) -> None:
    """Fail when a call changes what it is given, or tries to write to an array of it: those are read-only in use."""
    before = snapshot(given, whole=True)
    try:
        with locked(given):
            call()
    except ValueError as error:
        require("read-only" not in str(error), "nothing written to what is given", error, "work on a copy")
        raise
    altered = changed(before, snapshot(given, whole=True))
    require(not altered, f"{', '.join(altered)} unchanged", "other values", "work on a copy")


def check_typed_constructor(component: Any) -> None:
    """Every constructor parameter is annotated, and none is variable, so that YAML can set it."""
    untyped = untyped_parameters(type(component))
    require(not untyped, "annotated constructor parameters", f"none for {', '.join(untyped)}", "annotate them")


def check_keeps_settings(component: Any) -> None:
    """The component can be written as plain values and built again from them."""
    spec, copy = _copy(component)
    again, _ = _copy(copy)
    require(again == spec, f"the same settings after a rebuild, {spec}", again, "store parameters as they were given")


def check_constructor_is_offline(component: Any) -> None:
    """The constructor opens no connection; weights load at first use."""
    with _no_network():
        _copy(component)


def check_constructor_is_cheap(component: Any) -> None:
    """The constructor only stores settings: it takes little processor time."""
    spec, _ = _copy(component)
    # The fastest of three: what else the process does, such as collecting garbage, is not the constructor's.
    taken = min(_time(lambda: rebuild(spec)) for _ in range(3))
    require(taken < _CHEAP_S, f"a constructor within {_CHEAP_S} s", f"{taken:.2f} s", "load and compute at first use")


def _time(build: Callable[[], object]) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    build()
    return time.process_time() - start


def check_module_is_light(component: Any) -> None:
    """Importing the component's module loads no heavy library, so that it can be listed and described quickly."""
    module = type(component).__module__
    if module == "__main__" or importlib.util.find_spec(module.partition(".")[0]) is None:
        return  # a notebook or script, which nothing else imports
    heavy, problem = _import_alone(module)
    require(not problem, f"a module {module} that imports on its own", problem, "mend the import")
    require(not heavy, f"a module {module} without heavy imports", heavy, "import inside the functions that need it")


def check_documented(component: Any) -> None:
    """The class has a docstring of its own; ``medvol describe`` shows it."""
    text = (type(component).__doc__ or "").strip()
    require(bool(text), "a docstring on the class", "none", "say in one sentence what it does")


def check_repr(component: Any) -> None:
    """``repr`` is a text and names the class."""
    shown = repr(component)
    require(type(component).__name__ in shown, "a repr that names the class", repr(shown), "leave __repr__ out")


def check_identity(component: Any) -> None:
    """The identity written to evidence records has a name, fits into JSON, and is the same when asked again."""
    identity = getattr(component, "identity", None)
    if identity is None:
        return
    said = dict(identity())
    require(isinstance(said.get("name"), str), "a name in identity()", said, "add the class name under 'name'")
    try:
        first, second = json.dumps(said), json.dumps(dict(identity()))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"expected plain values in identity(); got {said} ({error}); turn them to text") from error
    require(first == second, f"one identity, {first}", second, "leave times, counters and addresses out of it")


@cache
def _import_alone(module: str) -> tuple[str, str]:
    """Heavy libraries that a module imports in a fresh interpreter, and the end of its error; empty without.

    The answer leaves by a descriptor of its own: what the module prints goes where its errors do.
    """
    code = (
        "import json, os, sys; report = os.fdopen(os.dup(1), 'w'); os.dup2(2, 1); "
        f"sys.path[:] = json.loads(sys.argv[1]); import {module}; "
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=report, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(sys.path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode or not done.stdout:
        return "", f"{done.stderr[-300:]} (exit code {done.returncode})".strip()
    return " ".join(json.loads(done.stdout)), ""


def _copy(component: Any) -> tuple[dict[str, Any], Any]:
    """Settings of a component, and another one built from them."""
    try:
        spec = describe_component(component)
        return spec, rebuild(spec)
    except (InvalidComponentError, CheckpointError) as error:
        raise AssertionError(
            f"expected settings that a checkpoint can hold; got {type(error).__name__}: {error}; store every "
            "constructor parameter under its own name, in a class at the top of a module"
        ) from error


@contextmanager
def _no_network() -> Iterator[None]:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("expected a constructor that stays offline; got a connection; load weights at first use")

    with patch.object(socket.socket, "connect", refuse), patch.object(socket, "getaddrinfo", refuse):
        yield


COMPONENT_CHECKS: tuple[Callable[[Any], None], ...] = (
    check_typed_constructor,
    check_keeps_settings,
    check_constructor_is_offline,
    check_constructor_is_cheap,
    check_module_is_light,
    check_documented,
    check_repr,
    check_identity,
)
