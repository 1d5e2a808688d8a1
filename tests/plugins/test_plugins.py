"""Every distribution under plugins/ keeps its own tests, with medvol as it is here."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/pyproject.toml"))


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_its_own_tests_pass(plugin):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin), str(REPOSITORY), *_paths()])}
    command = [sys.executable, "-m", "pytest", "tests", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=plugin, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_its_components_are_where_its_metadata_says(plugin):
    project = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]
    targets = [
        (name, target)
        for group, components in project["entry-points"].items()
        if group.startswith("medvol.")
        for name, target in components.items()
    ]
    assert targets
    for name, target in targets:
        module, _, attribute = target.partition(":")
        assert name == attribute
        assert f"class {name}(" in (plugin / f"{module.replace('.', '/')}.py").read_text()


def _paths():
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
