"""The distribution as users get it: built once, and installed in an environment of its own."""

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """An environment whose ``medvol`` is the built wheel; the libraries below it are those of the tests.

    Args:
        bin: Folder of its programs.
        dist: Folder of the built wheel and the source distribution.
    """

    bin: Path
    dist: Path

    def run(self, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a line of a shell; nothing of this repository is on the path."""
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment |= {"PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
        environment |= {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
        )


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Build source distribution and, from it, the wheel; install the wheel, without its dependencies."""
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, REPOSITORY]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(folder, with_pip=True, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "shared.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n")
    program = folder / "bin" / "pytest"  # pip makes none for a library that lies below
    program.write_text(f"#!{folder / 'bin' / 'python'}\nimport pytest\n\nraise SystemExit(pytest.console_main())\n")
    program.chmod(0o755)
    fresh = Environment(folder / "bin", dist)
    (wheel,) = dist.glob("*.whl")
    done = fresh.run(f"python -m pip install --quiet --no-deps --no-index {wheel}", dist)
    assert done.returncode == 0, done.stderr
    return fresh
