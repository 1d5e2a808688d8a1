"""Wheel and source distribution hold everything, and the wheel works away from the repository."""

import json
import subprocess
import tarfile
import zipfile
from email.parser import Parser
from importlib.metadata import version

import nibabel as nib
import pytest

import medvol
from tests.packaging.conftest import REPOSITORY, Environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]


def tracked(*folders: str) -> set[str]:
    """Files of the repository, as git knows them."""
    done = subprocess.run(
        ["git", "-c", "core.quotePath=off", "ls-files", "-z", "--", *folders],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()}


def test_the_wheel_has_every_file_of_the_package(environment: Environment) -> None:
    (wheel,) = environment.dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(info).decode())
    files = {name for name in names if ".dist-info/" not in name}
    assert files == tracked("medvol")
    assert {"medvol/py.typed", "medvol/templates/plugin/copier.yml", "medvol/queries/query_bank.yaml"} <= files
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"{info.removesuffix('METADATA')}licenses/LICENSE" in names
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_source_distribution_has_tests_and_licence(environment: Environment) -> None:
    (archive,) = environment.dist.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    assert tracked("medvol", "tests", "docs", "examples", "plugins") <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "Makefile"} <= names


def test_the_wheel_works_in_another_folder(environment: Environment, tmp_path) -> None:
    where = environment.run("python -c 'import medvol; print(medvol.__file__)'", tmp_path)
    assert str(environment.bin.parent) in where.stdout
    assert environment.run("medvol --version", tmp_path).stdout == f"medvol {version('medvol-r1')}\n"
    listed = environment.run("medvol list --json", tmp_path)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)["components"]
    assert {"TinyPolicy", "RegionPropagator", "FormatReward", "PhantomDataset"} <= {row["name"] for row in rows}
    assert not [row for row in rows if row["problem"]]


def test_the_wheel_segments_a_phantom(environment: Environment, tmp_path) -> None:
    volume = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)[0].volume
    nib.save(nib.Nifti1Image(volume.voxels.transpose(2, 1, 0), volume.affine), tmp_path / "phantom.nii.gz")
    done = environment.run("medvol segment phantom.nii.gz 'the liver' --policy CentreBoxPolicy --json", tmp_path)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    assert case["status"] == "done"
    assert (tmp_path / case["mask"]).is_file()
