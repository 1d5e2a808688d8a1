"""Everything medvol raises on purpose.

Each message is one sentence or two: what went wrong, the value received, what to do. The command line prints it
without a traceback and exits with code 2.

    MedvolError
    |-- UnknownComponentError    (KeyError)      no component of that name
    |-- ComponentImportError     (ImportError)   a plug-in was found but could not be imported
    |-- MissingExtraError        (ImportError)   an optional dependency is absent
    |-- DuplicateComponentError  (ValueError)    two distributions claim one name
    |-- InvalidComponentError    (TypeError)     a component breaks the contract of its role
    |-- ConfigError              (ValueError)    a setting cannot be used
    |-- QueryError               (ValueError)    a query or a query bank cannot be used
    |-- ScanError                (ValueError)    a scan is refused by the reading gate (see imaging/problems.py)
    |-- GeometryError            (ValueError)    arrays or affines that should agree do not
    |-- DatasetError             (ValueError)    a data set's layout or table cannot be used
    |-- EvidenceParseError       (ValueError)    a completion is not an answer (see grounding/grammar.py)
    |-- UntrustedAnswerError     (ValueError)    a strict segmenter refuses an answer that carries a warning
    |-- RecordError              (ValueError)    an evidence record or a jobs file cannot be used
    |-- PolicyError              (RuntimeError)  a policy failed on one prompt
    |-- EngineError              (RuntimeError)  a rollout engine cannot go on
    |-- PropagationError         (RuntimeError)  a propagator failed on one anchor
    |-- OutputError              (RuntimeError)  an answer was written, but a part of it could not be
    |-- RewardError              (ValueError)    a reward term was not given what it needs, or left [0, 1]
    `-- CheckpointError          (ValueError)    a checkpoint or model folder cannot be used
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class MedvolError(Exception):
    """Base of every error that medvol raises on purpose; it can be sent to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[MedvolError], args: tuple[Any, ...], state: Mapping[str, Any]) -> MedvolError:
    """The error again; its constructor, which may take other things than the sentence, is not called."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


class UnknownComponentError(MedvolError, KeyError):
    """No component of that name is registered."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError would show its sentence in quotes


class ComponentImportError(MedvolError, ImportError):
    """A registered component could not be imported."""


class MissingExtraError(MedvolError, ImportError):
    """An optional dependency is absent.

    Args:
        package: Import name of the absent package.
        extra: Extra of the distribution that installs it.
        asked: What the user asked for, such as ``medvol view``; empty where that is not known.
    """

    def __init__(self, package: str, extra: str, asked: str = "") -> None:
        lacking = (
            f"`{asked}` needs the extra {extra}" if asked else f"{package} is needed here but is not installed; run"
        )
        super().__init__(f'{lacking}: pip install "medvol-r1[{extra}]"')


class DuplicateComponentError(MedvolError, ValueError):
    """Two distributions claim one component name."""


class InvalidComponentError(MedvolError, TypeError):
    """A component breaks the contract of its role."""


class ConfigError(MedvolError, ValueError):
    """A setting cannot be used."""


class QueryError(MedvolError, ValueError):
    """A query or a query bank cannot be used."""


class ScanError(MedvolError, ValueError):
    """A scan is refused by the reading gate; subclasses name the reason."""


class GeometryError(MedvolError, ValueError):
    """Arrays or affines that should agree do not."""


class DatasetError(MedvolError, ValueError):
    """The layout or the table of a data set cannot be used."""


class EvidenceParseError(MedvolError, ValueError):
    """A completion is not an answer.

    Args:
        failure: Stable name of the failure, a member of ``medvol.grounding.grammar.FAILURES``.
        detail: What was received.
    """

    def __init__(self, failure: str, detail: str) -> None:
        super().__init__(f"{failure}: {detail}")
        self.failure = failure


class UntrustedAnswerError(MedvolError, ValueError):
    """A strict segmenter refuses an answer that carries a warning, or whose policy does not tell its training."""


class RecordError(MedvolError, ValueError):
    """An evidence record or a jobs file cannot be used."""


class PolicyError(MedvolError, RuntimeError):
    """A policy failed on a prompt, or gave something else than completions; the message names who publishes it."""


class EngineError(MedvolError, RuntimeError):
    """A rollout engine does not start, does not answer, or does not have the weights that it should have."""


class PropagationError(MedvolError, RuntimeError):
    """A propagator failed on one anchor, or gave something else than a mask."""


class OutputError(MedvolError, RuntimeError):
    """Mask and record of an answer were written, but something beside them could not be.

    Args:
        paths: What was written, by its kind.
        failures: Why each of the others was not, by its kind.
    """

    def __init__(self, paths: Mapping[str, Path], failures: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{kind}: {reason}" for kind, reason in failures.items())
        super().__init__(f"mask and record are written, but not all that was asked for: {reasons}")
        self.paths = dict(paths)
        self.failures = dict(failures)


class RewardError(MedvolError, ValueError):
    """A reward term was not given what it needs, or returned something that is not a number in [0, 1]."""


class CheckpointError(MedvolError, ValueError):
    """A checkpoint or a model folder cannot be used."""


CASE_ERRORS = (EvidenceParseError, OutputError, PolicyError, PropagationError, UntrustedAnswerError)
"""Those of one case: the command line ends with 1 and not with 2."""


def explain_error(error: Exception) -> str:
    """What went wrong, in one sentence; of a library's own error its name comes first."""
    if isinstance(error, MedvolError):
        return str(error)
    if isinstance(error, OSError):
        return explain_os_error(error)
    return f"{type(error).__name__}: {error}"


def explain_os_error(error: OSError) -> str:
    """What the system refused, in one sentence."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "a file is where a folder is needed; choose another path"
    if error.filename is None:
        return f"the system refused to read or write: {reason}"
    name = error.filename if error.filename2 is None else error.filename2  # of a copy the place it goes to
    return f"cannot use {_name_file(name)}: {reason}"


def _name_file(name: object) -> str:
    return repr(name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name))
