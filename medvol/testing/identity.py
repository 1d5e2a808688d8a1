"""Identities of policies and propagators, as evidence records hold them."""

from __future__ import annotations

import json

from medvol.core.roles import Policy, Propagator
from medvol.testing.contract import ContractViolation, require


def require_identity(component: Policy | Propagator) -> None:
    """Raise when an identity cannot be written to a record, has no name, or changes by itself.

    Raises:
        ContractViolation: It does.
    """
    first, second = dict(component.identity()), dict(component.identity())
    require("name" in first, "identity", "a name", f"the keys {sorted(first)}", "add the class name as name")
    require(first == second, "two identities", "the same", (first, second), "leave out times and counters")
    try:
        plain = json.loads(json.dumps(first))
    except (TypeError, ValueError) as error:
        raise ContractViolation(f"identity: expected plain values for JSON; {error}") from error
    require(set(plain) == set(first), "identity", "text keys", sorted(map(str, first)), "use text as keys")
