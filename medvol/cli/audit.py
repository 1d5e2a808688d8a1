"""``medvol describe REWARD --audit``: how rewards rank altered answers; torch stays out.

What is audited are rewards by name, with their default settings, or the weighted rewards of an experiment's YAML.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace

from medvol.cli.json_document import print_document
from medvol.cli.parsing import ComponentParser, RefusedSettingsError, building, explain_refusal
from medvol.cli.settings import FILE_SUFFIXES, read_model_settings
from medvol.core.errors import ConfigError
from medvol.core.ranges import require_whole
from medvol.core.registry import REWARDS
from medvol.core.roles import CaseDataset, Propagator, RewardTerm
from medvol.guarding.cases import count_cases, look_up
from medvol.terminal.console import Console

VIOLATED = 1
SCHEMA = "medvol-audit/1"

_CASES = 8

ACCEPTED: dict[str, Any] = {
    **dict.fromkeys(("audit", "json"), object),  # flags: a word that follows is not theirs
    "num_cases": int,
    "max_anchors": int,
    "cases": CaseDataset,
    "propagator": Propagator,
    "help": str,
}
"""Type hints of the options of ``describe``."""


def add_options(parser: ComponentParser) -> None:
    """Add the options of the audit to the parser of ``describe``."""
    parser.add_argument("--audit", action="store_true", help="rank altered answers by what the rewards pay for them")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--num_cases", type=int | None, help=f"how many cases of --cases are used, from the first; {_CASES} by default"
    )
    parser.add_argument("--max_anchors", type=int | None, help="most anchors that an answer may have; 1 by default")
    parser.add_subclass_arguments(
        CaseDataset, "cases", required=False, help="data set of the audit; small cases made in memory by default"
    )
    parser.add_subclass_arguments(
        Propagator, "propagator", required=False, help="of the audit; by default one that knows the answers"
    )


def require_audit(options: Namespace) -> None:
    """Refuse options of the audit without it.

    Raises:
        ConfigError: There is one.
    """
    for name in ("num_cases", "max_anchors", "cases", "propagator"):
        if options.get(name) is not None and not options.audit:
            raise ConfigError(f"--{name} is about the audit of rewards; add --audit, or leave it out")
    require_whole(1, num_cases=options.num_cases, max_anchors=options.max_anchors)
    if options.num_cases is not None and options.get("cases") is None:
        raise ConfigError("--num_cases is about the data set of --cases; add that, or leave --num_cases out")


def audit(names: Sequence[str], built: Namespace, console: Console) -> int:
    """Print the audit of rewards; 1 when a rank is violated.

    Args:
        names: Names of rewards, or one YAML file of an experiment.
        built: Options of ``add_options``, built.
        console: Where to print.

    Raises:
        UnknownComponentError: No reward has the name.
        ConfigError: The experiment has no rewards, or a setting of theirs is at fault.
    """
    from medvol.auditing.audit import audit_rewards

    rewards, weights = _read_experiment(names) if names[0].endswith(FILE_SUFFIXES) else (_by_name(names), None)
    cases = built.get("cases")
    count = _CASES if built.num_cases is None else built.num_cases
    chosen = None if cases is None else [look_up(cases, index) for index in range(min(count, count_cases(cases)))]
    anchors = 1 if built.max_anchors is None else built.max_anchors
    found = audit_rewards(rewards, weights, chosen, built.get("propagator"), anchors)
    if built.json:
        print_document(SCHEMA, found.to_dict())
    else:
        console.print(found)
    return VIOLATED if found.violations else 0


def _by_name(names: Sequence[str]) -> list[RewardTerm]:
    terms = []
    for name in names:
        reward = REWARDS.get(name)
        required = [p.name for p in inspect.signature(reward).parameters.values() if p.default is p.empty]
        if required:
            raise ConfigError(f"{name} cannot do without {', '.join(required)}; audit it from an experiment's YAML")
        with building(f"the reward {name}"):
            terms.append(reward())
    return terms


def _read_experiment(names: Sequence[str]) -> tuple[list[RewardTerm], Mapping[str, float] | None]:
    path, *others = names
    if others:
        raise ConfigError(f"{path!r} must be the only one to audit; leave {others[0]!r} out")
    return read_rewards(path)


def read_rewards(path: str) -> tuple[list[RewardTerm], Mapping[str, float] | None]:
    """Rewards and weights of a ``GRPOModule`` in YAML; nothing else of the experiment is built.

    Raises:
        ConfigError: It has none, or a setting of theirs is at fault.
    """
    settings = read_model_settings(path)
    if not settings.get("rewards"):
        raise ConfigError(f"{path!r} has no model.rewards, as GRPOModule takes them; name an experiment that has them")
    given: dict[str, Any] = {key: settings[key] for key in ("rewards", "reward_weights") if key in settings}
    return _build(given)


def _build(given: Mapping[str, Any]) -> tuple[list[RewardTerm], Mapping[str, float] | None]:
    accepted = {"rewards": list[RewardTerm], "reward_weights": dict[str, float] | None}
    parser = ComponentParser()
    for key, hint in accepted.items():
        parser.add_argument(f"--{key}", type=hint)
    arguments = [f"--{key}={json.dumps(value)}" for key, value in given.items()]
    try:
        built = parser.instantiate(parser.parse_args(arguments))
    except RefusedSettingsError as refusal:
        raise explain_refusal(refusal, given, accepted) from refusal
    return built.rewards, built.reward_weights
