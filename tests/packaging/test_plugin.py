"""From nothing to a plug-in in the shape that an index takes: the commands of the page, in a fresh environment."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import REPOSITORY, Environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

PAGE = REPOSITORY / "docs" / "how-to" / "plugins.md"
CLASSES = {"AcmePolicy", "AcmePropagator", "AcmeReward", "AcmeDataset"}
MOST_COMMANDS = 6


def first_block(page: Path) -> list[str]:
    """Commands of the first block of a page, without what follows ``#``."""
    block = re.search(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert block
    return [line.partition("  #")[0].strip() for line in block[1].splitlines() if line.strip()]


def test_the_commands_of_the_page(environment: Environment, tmp_path: Path) -> None:
    commands = first_block(PAGE)
    assert len(commands) <= MOST_COMMANDS
    printed = {}
    for command in commands:
        done = environment.run(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed[command] = done.stdout
    tested = next(text for command, text in printed.items() if command.startswith("pytest"))
    assert re.search(r"\b\d{2,} passed", tested)
    assert "failed" not in tested
    assert "skipped" not in tested
    listed = json.loads(environment.run("medvol list --json", tmp_path).stdout)["components"]
    found = {row["name"]: row for row in listed if row["distribution"] == "medvol-acme"}
    assert found.keys() == CLASSES
    assert not any(row["problem"] for row in found.values())
    assert (tmp_path / "runs" / "experiment" / "model" / "model.safetensors").is_file()
    (wheel,) = (tmp_path / "medvol-acme" / "dist").glob("*.whl")
    assert wheel.name == "medvol_acme-0.1.0-py3-none-any.whl"
    assert len(list(wheel.parent.glob("*.tar.gz"))) == 1
    check_wheel(wheel, environment, tmp_path)


def check_wheel(wheel: Path, environment: Environment, tmp_path: Path) -> None:
    """The wheel brings all that the plug-in needs: scored from it, without the folder it was built in."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"medvol_acme/sample/scan-{number}.nii.gz" for number in (1, 2, 3)} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    experiment = (tmp_path / "medvol-acme" / "evaluate.yaml").read_text()
    (tmp_path / "evaluate.yaml").write_text(experiment)
    commands = f"pip install --quiet --force-reinstall --no-deps --no-index {wheel}; mv medvol-acme away; "
    done = environment.run(commands + "medvol test --config evaluate.yaml", tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "runs" / "evaluate" / "evaluation.json").read_text())
    assert scores["all"]["cases"] == 2
    cases = json.loads((tmp_path / "runs" / "evaluate" / "cases.json").read_text())
    dsc = {case["target"]: case["dsc"] for case in cases}
    assert dsc["ball"] > 0.8
