"""Every kind of key that the audit knows has a bound."""

from ops.lab.generate.stored_bounds import STORED
from shared.store.audit.rules import RULES


def test_each_kind_of_key_has_exactly_one_bound() -> None:
    kinds = [kind for each in STORED for kind in each.kinds]
    assert sorted(kinds) == sorted(RULES)
