"""``medvol push``: what would be uploaded is said first; a fake takes the place of the hub, and nothing leaves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from medvol.cli import main
from medvol.core.errors import CheckpointError, ConfigError
from medvol.core.training_data import TrainingData
from medvol.training.export import export_model
from medvol.training.publishing import plan_publication
from tests.fixtures.light_policy import LightPolicy


class Hub:
    """Notes what it is told, and may refuse."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refusal = refusal

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", repo_id, private, exist_ok))
        if self.refusal is not None:
            raise self.refusal

    def create_commit(self, repo_id: str, operations: list, *, commit_message: str) -> SimpleNamespace:
        content = {operation.path_in_repo: Path(operation.path_or_fileobj).read_bytes() for operation in operations}
        self.calls.append(("commit", repo_id, content))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    export_model(LightPolicy(), tmp_path / "model", TrainingData({"liver"}))
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr("medvol.training.publishing.HfApi", lambda: made)
    return made


FILES = ["README.md", "light.safetensors", "medvol.json", "training_data.json"]


def test_without_yes_it_only_says_what_would_happen(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(folder), "somebody/model"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert hub.calls == []
    assert [line.split()[-1] for line in lines[:5]] == [*FILES, "somebody/model"]
    assert lines[1].split()[0] == str((folder / "light.safetensors").stat().st_size)
    assert any("no licence is chosen" in line for line in lines)
    assert any("every word of the training queries" in line for line in lines)
    assert lines[-1] == "nothing was uploaded; add --yes to upload these files"


@pytest.mark.parametrize("public", [False, True])
def test_with_yes_exactly_these_files_go_in_one_commit(
    public: bool, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(folder), "somebody/model", "--yes", *(["--public"] if public else [])]) == 0
    create, commit = hub.calls
    assert create == ("create", "somebody/model", not public, True)
    assert commit == ("commit", "somebody/model", {name: (folder / name).read_bytes() for name in FILES})
    assert capsys.readouterr().out.splitlines()[-1] == "uploaded https://hub/somebody/model/commit/1"


def test_a_chosen_licence_is_no_remark(folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: apache-2.0"))
    assert not any("licence" in remark for remark in plan_publication(folder, "a/b").remarks)
    card.unlink()
    assert any("there is no card" in remark for remark in plan_publication(folder, "a/b").remarks)


@pytest.mark.parametrize("name", ["model", "a/b/c", "a b/c", "-a/b", ""])
def test_a_name_that_the_hub_does_not_take_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no name of the hub"):
        plan_publication(folder, name)


def test_what_is_no_model_folder_or_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a model folder"):
        plan_publication(tmp_path, "a/b")
    (folder / "secret").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="no plain file"):
        plan_publication(folder, "a/b")
    (folder / "secret").unlink()
    (folder / "light.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="not as medvol wrote it"):
        plan_publication(folder, "a/b")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (LocalTokenNotFoundError("no token"), "you are not logged in to the hub; run `hf auth login` first"),
        (
            HfHubHTTPError("403 Forbidden", response=httpx.Response(403, request=httpx.Request("POST", "https://hub"))),
            "the hub did not take",
        ),
        (ConnectionError("no route"), "no route"),
        (type("ConnectError", (Exception,), {})("no name"), "no name"),  # whichever library the hub is asked with
        (ImportError("no proxies of that kind"), "no proxies of that kind"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(
    refusal: Exception, said: str, folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refusal = refusal
    assert main(["push", str(folder), "somebody/model", "--yes"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
