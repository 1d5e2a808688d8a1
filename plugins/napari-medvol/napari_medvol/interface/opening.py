"""What a viewer asks for in one go: an answer with its voxels, a new question, a reading and what comes after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .anchors import Anchor
from .answers import Answer, Scan, State
from .client import Client, Progress, Steps


@dataclass(frozen=True)
class Session:
    """What `medvol view` was started with.

    Args:
        about: Who answers, who propagates, where readings go.
        scans: Names of the scans that can be asked about, by their ids.
        answers: The work list: for each answer its id and a line for people.
    """

    about: dict[str, Any]
    scans: dict[str, str]
    answers: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """An answer as a viewer shows it.

    Args:
        answer: It.
        state: What is shown first: the draft that somebody left, or the last reading.
        voxels: Intensities (Z, Y, X); None where the viewer shows the scan already.
        session: The work list, as it is now.
    """

    answer: Answer
    state: State
    voxels: NDArray[Any] | None
    session: Session


def look(client: Client) -> Steps[Session]:
    """The session of a server."""
    yield Progress("looking at the session")
    about = client.session()
    scans = {str(scan["scan"]): str(scan["name"]) for scan in about["scans"]}
    return Session(about, scans, {str(row["id"]): _line(row) for row in client.list_answers()})


def open_scan(client: Client, scan_id: str) -> Steps[tuple[Scan, NDArray[Any]]]:
    """A scan with its voxels, where there is no answer yet."""
    scan = yield from client.open_scan(scan_id)
    return scan, (yield from client.load_voxels(scan))


def open_answer(client: Client, answer_id: str, shown: str) -> Steps[Opened]:
    """An answer, with the draft that somebody left.

    Args:
        client: Of the session.
        answer_id: Of the answer.
        shown: Id of the scan whose voxels the viewer has; they are not loaded again.
    """
    answer = yield from client.open(answer_id)
    voxels = None if answer.scan.scan_id == shown else (yield from client.load_voxels(answer.scan))
    state = answer.current if answer.draft is None else (yield from client.propagate(answer, answer.draft))
    return Opened(answer, state, voxels, (yield from look(client)))


def ask(client: Client, scan_id: str, query: str, policy: bool, shown: str) -> Steps[Opened]:
    """A new question, and the answer to it; see ``Client.ask`` and ``open_answer``."""
    answer_id = yield from client.ask(scan_id, query, policy)
    return (yield from open_answer(client, answer_id, shown))


def save(client: Client, answer: Answer, verdict: str, anchor: Anchor, remark: str) -> Steps[tuple[str, Opened]]:
    """Keep a reading; returns the name of its record, and the answer as it stands now. See ``Client.save``."""
    file = yield from client.save(answer, verdict, anchor, remark)
    return file, (yield from open_answer(client, answer.answer_id, answer.scan.scan_id))


def _line(row: dict[str, Any]) -> str:
    stands = "damaged" if row["damage"] else row["verdict"] or ("a draft" if row["unfinished"] else "not read")
    return f"{row['query']} | {row['scan_name']} | {stands}"
