"""``medvol new plugin``: which names are taken, and what is written."""

import ast
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from subprocess import run

import pytest
import yaml

import medvol
from medvol.auditing.audit import audit_rewards
from medvol.cli import main
from medvol.cli.new import ROLES, TEMPLATE, judge_name, module_of, prefix_of, write_plugin
from medvol.core.errors import MissingExtraError
from tests.test_public_use import names_in_code, names_in_text, private

SUBSETS = ["policy", "propagator", "reward", "dataset", "policy dataset", "propagator reward", " ".join(ROLES)]
LONGEST = "medvol-acme-of-a-name-as-long-as-allowed"


@pytest.mark.parametrize(
    ("name", "normal", "module", "prefix"),
    [
        ("medvol-acme", "medvol-acme", "medvol_acme", "Acme"),
        ("Medvol_Acme.Lab", "medvol-acme-lab", "medvol_acme_lab", "AcmeLab"),
        ("acme--3d", "acme-3d", "acme_3d", "Acme3d"),
    ],
)
def test_a_name_is_brought_into_its_normal_form(name: str, normal: str, module: str, prefix: str) -> None:
    assert judge_name(name, ["reward"]) == normal
    assert (module_of(normal), prefix_of(normal)) == (module, prefix)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "cannot name a distribution"),
        ("a b", "cannot name a distribution"),
        ("../acme", "cannot name a distribution"),
        ("acme-", "cannot name a distribution"),
        ("ácme", "cannot name a distribution"),
        ("acme\n", "cannot name a distribution"),
        ("a" * 41, "cannot name a distribution"),
        ("Medvol", "reserved"),
        ("json", "reserved"),
        ("class", "reserved"),
        ("medvol-3d", "a class begins with a letter"),
        ("numpy", "installed in this environment already"),
        ("PyYAML", "installed in this environment already"),
        ("yaml", "installed in this environment already"),
        ("medvol-tiny", "gives the class TinyPolicy, which is registered already"),
        ("axial", "gives the class AxialReward"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    name: str, said: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert said in refused("new", "plugin", name, "--folder", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_class_of_another_role_takes_no_name() -> None:
    assert judge_name("medvol-tiny", ["reward"]) == "medvol-tiny"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plugin"], "name must be given"),
        (["model", "medvol-acme"], "what must be one of 'plugin'"),
        (["plugin", "medvol-acme", "--roles", "judge"], "got 'judge'"),
        (["plugin", "medvol-acme", "--license", "GPL"], "license must be one of"),
        (["plugin", "medvol-acme", "--author", 'A "B"'], "without quotation marks"),
        (["plugin", "medvol-acme", "--author", "A\x1b"], "without quotation marks"),
        (["plugin", "medvol-acme", "--rolls", "reward"], "did you mean '--roles'?"),
    ],
)
def test_options_are_judged(
    arguments: list[str], said: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("new", *arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "medvol-acme").write_text("mine")
    assert "is there already" in refused("new", "plugin", "medvol-acme", "--folder", tmp_path)
    assert (tmp_path / "medvol-acme").read_text() == "mine"


def test_copier_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "copier", None)
    with pytest.raises(MissingExtraError, match=r'pip install "medvol-r1\[plugin\]"'):
        write_plugin(tmp_path / "medvol-acme", "medvol-acme", ["reward"], "MIT", "A. Author")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Plug-ins of several roles, with names of several lengths, since lines fold by them."""
    folder = tmp_path_factory.mktemp("plugins")
    names = ["b", *(f"medvol-acme-{'x' * number}" for number in range(1, 6)), LONGEST]
    for name, roles in zip(names, SUBSETS, strict=True):
        arguments = ["--roles", *roles.split(), "--folder", str(folder), "--license", "MIT"]
        assert main(["new", "plugin", name, *arguments]) == 0
    return {roles: folder / name for name, roles in zip(names, SUBSETS, strict=True)}


def test_style_is_clean(plugins: dict[str, Path]) -> None:
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        for folder in plugins.values():
            done = run([sys.executable, "-m", "ruff", *command, "."], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{folder.name}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("roles", SUBSETS)
def test_only_the_roles_that_were_asked_for(plugins: dict[str, Path], roles: str) -> None:
    folder, wanted = plugins[roles], roles.split()
    name = folder.name
    module, prefix = module_of(name), prefix_of(name)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    points = {key: value for group in project["entry-points"].values() for key, value in group.items()}
    assert points == {f"{prefix}{ROLES[role]}": f"{module}.{role}:{prefix}{ROLES[role]}" for role in wanted}
    assert {path.stem for path in (folder / module).glob("*.py")} == {"__init__", *wanted}
    assert {path.stem for path in (folder / "tests").glob("*.py")} == {
        "test_contracts",
        *(f"test_{role}" for role in wanted),
    }
    assert (folder / module / "sample").is_dir() == ("dataset" in wanted)
    assert (folder / "experiment.yaml").is_file() == (wanted != ["policy"])
    assert (folder / "evaluate.yaml").is_file() == ("policy" in wanted)
    for target in points.values():
        file, _, cls = target.partition(":")
        assert f"class {cls}(" in (folder / f"{file.replace('.', '/')}.py").read_text()
    readme = (folder / "README.md").read_text()
    titles = {"policy": "a policy", "propagator": "a propagator", "reward": "a reward", "dataset": "a data set"}
    assert {role for role, title in titles.items() if f"## What {title} promises" in readme} == set(wanted)
    assert "{{" not in readme
    assert "{%" not in readme


@pytest.mark.parametrize("roles", SUBSETS)
def test_experiments_name_what_is_there(plugins: dict[str, Path], roles: str) -> None:
    folder = plugins[roles]
    registries = (medvol.POLICIES, medvol.PROPAGATORS, medvol.REWARDS, medvol.DATASETS)
    names = {name for registry in registries for name in registry}
    own = {f"{prefix_of(folder.name)}{ROLES[role]}" for role in roles.split()}
    used = set()
    for path in folder.glob("*.yaml"):
        used |= set(components(yaml.safe_load(path.read_text())))
    assert own <= used
    assert used <= {*names, *own, "CaseDataModule", "EvaluationModule", "GRPOModule", "SFTModule"}


def components(value: object) -> list[str]:
    """Names of classes in a configuration; the keys of ``reward_weights`` are some too."""
    if isinstance(value, dict):
        keys = [key for key in value if key[0].isupper()]
        return [*keys, *(name for part in value.values() for name in components(part))]
    if isinstance(value, list):
        return [name for part in value for name in components(part)]
    return [value] if isinstance(value, str) and value.isidentifier() and value[0].isupper() else []


def test_the_workflow_runs_what_is_there(plugins: dict[str, Path]) -> None:
    for roles, folder in plugins.items():
        workflow = yaml.safe_load((folder / ".github" / "workflows" / "test.yml").read_text())
        steps = workflow["jobs"]["test"]["steps"]
        commands = [step["run"] for step in steps if "run" in step]
        assert ("medvol fit --config experiment.yaml" in commands) == (roles != "policy")
        assert ("medvol test --config evaluate.yaml" in commands) == ("policy" in roles.split())
        assert all(len(step["uses"].partition("@")[2]) == 40 for step in steps if "uses" in step)
        assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]


def test_public_names_are_enough(plugins: dict[str, Path]) -> None:
    folder = plugins["policy propagator reward dataset"]
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())
        assert private(names_in_code(path.read_text())) == []
    for path in (*folder.rglob("*.md"), *folder.rglob("*.yaml")):
        assert private(names_in_text(path.read_text())) == []


def test_the_version_of_medvol_is_bounded(plugins: dict[str, Path]) -> None:
    project = tomllib.loads((plugins["reward"] / "pyproject.toml").read_text())["project"]
    major, minor, *_ = medvol.__version__.split(".")
    assert f"medvol-r1>={major}.{minor},<{major}.{int(minor) + 1}" in project["dependencies"]
    assert project["license"] == "MIT"
    assert (plugins["reward"] / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) the authors of medvol-")


def test_a_template_of_copier_runs_nothing(tmp_path: Path) -> None:
    """It has no tasks and no extensions, and what its own questions compute is what the command line computes."""
    from copier import run_copy

    template = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
    assert not {"_tasks", "_migrations", "_jinja_extensions", "_secret_questions"} & template.keys()
    answers = {"name": "medvol-acme-lab", "roles": ["reward"], "license": "BSD-3-Clause", "author": "A. Author"}
    run_copy(str(TEMPLATE), tmp_path / "copied", answers, defaults=True, quiet=True, unsafe=False)
    version = {"medvol_version": ".".join(medvol.__version__.split(".")[:2])}
    run_copy(str(TEMPLATE), tmp_path / "again", answers | version, defaults=True, quiet=True, unsafe=False)
    write_plugin(tmp_path / "written", "medvol-acme-lab", ["reward"], "BSD-3-Clause", "A. Author")
    written = tmp_path / "written"
    files = {path.relative_to(written): path for path in written.rglob("*") if path.is_file()}
    assert {Path("medvol_acme_lab/reward.py"), Path("LICENSE"), Path(".gitignore")} <= files.keys()
    for relative, path in files.items():
        assert (tmp_path / "again" / relative).read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="single hyphens"):
        run_copy(str(TEMPLATE), tmp_path / "bad", {**answers, "name": "../x"}, defaults=True, quiet=True)


def test_the_sample_is_what_it_says_it_is(plugins: dict[str, Path]) -> None:
    """Three balls: their volume by the formula, their intensities, and another one for every patient."""
    folder = plugins["dataset"]
    sample = folder / module_of(folder.name) / "sample"
    sizes = []
    for number in (1, 2, 3):
        volume = medvol.read_volume(sample / f"scan-{number}.nii.gz")
        mask = medvol.read_mask(sample / f"mask-{number}.nii.gz", volume)
        assert volume.shape == (12, 32, 32)
        assert volume.modality == "CT"
        assert set(volume.voxels[mask].tolist()) == {200.0}
        assert set(volume.voxels[~mask].tolist()) == {-1000.0, 40.0}
        radius = 6 + number
        assert mask.sum() * 2.5 == pytest.approx(4 / 3 * 3.14159 * radius**3, rel=0.05)
        sizes.append(int(mask.sum()))
    assert len(set(sizes)) == 3


def test_the_reward_passes_its_own_audit(plugins: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plugins["reward"]
    monkeypatch.syspath_prepend(str(folder))
    reward = getattr(import_module(f"{module_of(folder.name)}.reward"), f"{prefix_of(folder.name)}Reward")
    found = audit_rewards([reward()])
    assert not found.violations
    assert sum(rank.state == "below" for rank in found.ranks) > 40, "it judges what it is asked to judge"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("roles", "verb", "config"),
    [("propagator", "fit", "experiment"), ("dataset", "fit", "experiment"), ("policy", "test", "evaluate")],
)
def test_an_experiment_runs_with_one_role_alone(
    plugins: dict[str, Path], roles: str, verb: str, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four together, installed, are in ``tests/packaging``."""
    folder = plugins[roles]
    monkeypatch.syspath_prepend(str(folder))
    module = import_module(f"{module_of(folder.name)}.{roles}")
    name = f"{prefix_of(folder.name)}{ROLES[roles]}"
    registry = {"policy": medvol.POLICIES, "propagator": medvol.PROPAGATORS, "dataset": medvol.DATASETS}[roles]
    with registry.registered(name, getattr(module, name)):
        out = f"--trainer.default_root_dir={tmp_path / 'run'}"
        assert main([verb, "--config", str(folder / f"{config}.yaml"), out]) == 0
    written = {"fit": Path("model") / "model.safetensors", "test": Path("evaluation.json")}
    assert (tmp_path / "run" / written[verb]).is_file()
