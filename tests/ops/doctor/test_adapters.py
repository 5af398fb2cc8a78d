"""What the doctor says about the adapters of the settings."""

import pytest

from ops.doctor.adapters import adapter_facts


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("s3://bucket/sql", "s3://bucket/sql, fetched by the workers"),
        ("https://h/x.zip?signature=secret", "https://h/x.zip, fetched by the workers"),
        ("org/repo@v2", "org/repo@v2, from the hub"),
    ],
)
def test_adapters_elsewhere_are_not_fetched(source: str, shown: str) -> None:
    facts = adapter_facts("sql", source, bases_name="base")
    assert (facts.source, facts.problem) == (shown, None)
