"""Everything medvol raises on purpose.

Each message is one sentence or two: what went wrong, the value received, what to do. The command line prints it
without a traceback and exits with code 2.

    MedvolError
    |-- UnknownComponentError    (LookupError)   no component of that name
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
    |-- PropagationError         (RuntimeError)  a propagator failed on one anchor
    |-- RewardError              (ValueError)    a reward term was not given what it needs, or left [0, 1]
    `-- CheckpointError          (ValueError)    a checkpoint or model folder cannot be used
"""

from __future__ import annotations


class MedvolError(Exception):
    """Base of every error that medvol raises on purpose."""


class UnknownComponentError(MedvolError, LookupError):
    """No component of that name is registered."""


class ComponentImportError(MedvolError, ImportError):
    """A registered component could not be imported."""


class MissingExtraError(MedvolError, ImportError):
    """An optional dependency is absent.

    Args:
        package: Import name of the absent package.
        extra: Extra of the distribution that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is needed here but is not installed; run: pip install "medvol-r1[{extra}]"')


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
        failure: Stable name of the failure, a member of ``medvol.core.grounding.grammar.FAILURES``.
        detail: What was received.
    """

    def __init__(self, failure: str, detail: str) -> None:
        super().__init__(f"{failure}: {detail}")
        self.failure = failure


class UntrustedAnswerError(MedvolError, ValueError):
    """A strict segmenter refuses an answer that carries a warning, or whose policy does not tell its training."""


class RecordError(MedvolError, ValueError):
    """An evidence record or a jobs file cannot be used."""


class PropagationError(MedvolError, RuntimeError):
    """A propagator failed on one anchor; the message names the volume and the anchor."""


class RewardError(MedvolError, ValueError):
    """A reward term was not given what it needs, or returned something that is not a number in [0, 1]."""


class CheckpointError(MedvolError, ValueError):
    """A checkpoint or a model folder cannot be used."""
