"""Every distribution under plugins/ keeps its own tests, with medvol as it is here."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent for path in (REPOSITORY / "plugins").glob("*/tests"))
PROJECTS = sorted((REPOSITORY / "plugins").glob("*/pyproject.toml"))
SHARED = REPOSITORY / "plugins" / "napari-medvol" / "napari_medvol" / "interface"
SLICER = REPOSITORY / "plugins" / "slicer-medvol" / "MedVolView"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_its_own_tests_pass(plugin):
    """Those that start a server, or need a viewer, are run by `make plugins`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(plugin), str(REPOSITORY), *_paths()])}
    command = [sys.executable, "-m", "pytest", "tests", "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-m", "not slow"], cwd=plugin, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_its_components_are_where_its_metadata_says(path):
    entries = tomllib.loads(path.read_text())["project"]["entry-points"]
    targets = [(group, name, target) for group, found in entries.items() for name, target in found.items()]
    assert targets
    for group, name, target in targets:
        module, _, attribute = target.partition(":")
        file = path.parent / module.replace(".", "/")
        if group == "napari.manifest":
            assert (file / attribute).is_file()
        else:
            assert group.startswith("medvol.")
            assert name == attribute
            assert f"class {name}(" in file.with_suffix(".py").read_text()


def test_both_viewers_have_the_same_client():
    """Slicer installs no packages, so its module holds a copy."""
    own, copied = ({path.name: path.read_bytes() for path in folder.glob("*.py")} for folder in (SHARED, _copy()))
    assert copied == own
    listed = (SLICER / "CMakeLists.txt").read_text()
    assert all(f"{path.relative_to(SLICER).as_posix()}\n" in listed for path in SLICER.glob("MedVolViewLib/**/*.py"))


def test_the_module_of_slicer_needs_slicers_python_alone():
    """Standard library and numpy; Slicer's own modules only where its scene and its widgets are; Python 3.9."""
    allowed = {*sys.stdlib_module_names, "numpy", "MedVolViewLib"}
    own = {"MedVolView.py": {"qt", "ctk", "slicer"}, "scene.py": {"slicer", "vtk"}}
    files = [SLICER / "MedVolView.py", *SLICER.glob("MedVolViewLib/**/*.py")]
    assert len(files) == 10
    for path in files:
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        named |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert {name.partition(".")[0] for name in named} <= allowed | own.get(path.name, set()), path.name
        strict = [call for call in ast.walk(tree) if isinstance(call, ast.keyword) and call.arg == "strict"]
        assert not strict, "zip(strict=) is of Python 3.10"


def _copy():
    return SLICER / "MedVolViewLib" / "interface"


def _paths():
    return filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
