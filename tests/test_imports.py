"""Every module imports, and the light ones import nothing heavy."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import medvol
from medvol.core.errors import MissingExtraError
from medvol.core.registry import REGISTRIES

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(medvol.__path__, "medvol.") if module.name != "medvol.__main__"
)
HEAVY = ("torch", "transformers", "lightning", "SimpleITK", "nibabel", "matplotlib")


def heavy_after(statement: str) -> list[str]:
    """Heavy libraries that a fresh process has loaded after a statement."""
    script = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_module_imports() -> None:
    assert len(MODULES) > 60
    failed = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except MissingExtraError:  # of an extra that is not installed here
            continue
        except Exception as error:
            failed[name] = error
    assert not failed


@pytest.mark.parametrize(
    "statement",
    [
        "import medvol",
        "import medvol.cli",
        "import medvol.core.registry, medvol.core.roles, medvol.core.types",
        "import medvol.policies, medvol.propagators, medvol.rewards, medvol.datasets",
        "from medvol import parse_evidence, Policy, Case, POLICIES; POLICIES.names()",
    ],
)
def test_light_imports(statement: str) -> None:
    assert heavy_after(statement) == []


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_components_import_without_heavy_libraries(registry) -> None:
    names = [row.name for row in registry.describe() if row.distribution == "medvol-r1"]
    loaded = heavy_after(
        f"from medvol.core.registry import {registry.kind.upper()} as R\n[R.get(name) for name in {names!r}]"
    )
    assert not set(loaded) & {"torch", "transformers", "lightning", "SimpleITK"}
