"""Files at the root that no program here reads: held to what they are about."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()

CITATION_KEYS = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact"),
    *("repository-code", "title", "type", "url", "version"),
}
"""Keys that version 1.2.0 of the Citation File Format has."""


def read_yaml(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_the_citation_has_what_its_format_asks_for() -> None:
    """Required keys, no unknown one, and the facts of pyproject.toml."""
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    assert {"authors", "cff-version", "message", "title"} <= citation.keys() <= CITATION_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("dataset", "software")
    assert citation["authors"] == [{"name": "medvol contributors"}]
    assert (str(citation["version"]), citation["license"]) == (PROJECT["version"], PROJECT["license"])
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= reference.keys()


@pytest.mark.parametrize("name", ["SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE"])
def test_the_usual_pages_are_there(name: str) -> None:
    assert len((REPOSITORY / name).read_text().split()) > 100


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_use_pinned_actions_and_may_read_only(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step.get("uses", f"actions/x@{'0' * 40}"))
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False
    for line in path.read_text().splitlines():
        assert "uses:" not in line or re.search(r"# v\d+\.\d+\.\d+$", line), line


def test_every_system_and_version_is_tried() -> None:
    (path,) = WORKFLOWS
    matrix = read_yaml(path)["jobs"]["quick"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_commands_of_the_workflow_are_there() -> None:
    """Targets of make, extras and files that it names exist."""
    text = WORKFLOWS[0].read_text()
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"run: make (\w+)", text)) <= set(targets)
    extras = PROJECT["optional-dependencies"].keys()
    assert all(set(names.split(",")) <= extras for names in re.findall(r'"\.\[([\w,]+)\]"', text))
    assert "docker build" not in text or (REPOSITORY / "Dockerfile").is_file()


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_issue_forms_are_forms(path: Path) -> None:
    """What GitHub asks of a form: name, description, a body of known parts with unique ids."""
    form = read_yaml(path)
    assert {"name", "description", "body"} <= form.keys()
    kinds = [part["type"] for part in form["body"]]
    assert set(kinds) <= {"markdown", "textarea", "input", "dropdown", "checkboxes"}
    assert set(kinds) - {"markdown"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"].get("label") or part["type"] == "markdown" for part in form["body"])
    assert len(FORMS) >= 3


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile, lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    patterns = (REPOSITORY / ".dockerignore").read_text().split()
    kept = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    assert patterns[0] == "*"
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert set(sources) == set(kept)
    assert all((REPOSITORY / source).exists() for source in sources)
    readme, licences = PROJECT["readme"], PROJECT["license-files"]
    assert {readme, "pyproject.toml", "medvol"} <= set(sources)
    assert all(any(fnmatch.fnmatch(source, pattern) for source in sources) for pattern in licences)


def test_the_image_runs_medvol_as_an_ordinary_user() -> None:
    stages = [index for index, (word, _) in enumerate(instructions()) if word == "FROM"]
    last = dict(instructions()[stages[-1] :])
    assert last["USER"] == "medvol"
    assert f"useradd --create-home --uid 1000 {last['USER']}" in last["RUN"]
    assert last["ENTRYPOINT"] == '["medvol"]'
    assert last["WORKDIR"] == "/data"
    assert "HOME=/tmp" in last["ENV"]


def test_the_image_is_bounded_and_small() -> None:
    """Hadolint's rules that matter here: tags are named, no cache is kept, shell variables are quoted."""
    words = instructions()
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups()
    for word, rest in words:
        if word == "FROM":
            assert int(low) <= int(re.match(r"python:3\.(\d+)-slim-", rest)[1]) < int(high)
        if word == "RUN":
            assert "sudo" not in rest
            assert not re.search(r"apt-get install(?!.*rm -rf /var/lib/apt/lists)", rest)
            quoted = " ".join(re.findall(r'"([^"]*)"', rest))
            assert all(variable in quoted for variable in re.findall(r"\$\{\w+\}", rest))
    arguments = [rest.partition("=") for word, rest in words if word == "ARG"]
    extras = next(value for name, _, value in arguments if name == "EXTRAS")
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert any("PIP_NO_CACHE_DIR=1" in rest for word, rest in words if word == "ENV")
    torch = [need for need in PROJECT["dependencies"] if need.startswith("torch")]
    assert all(f'"{need}"' in DOCKERFILE for need in torch)
