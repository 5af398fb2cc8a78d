"""Weights of tenants."""

import pytest

from shared.errors import SettingsError
from shared.settings import ApiSettings, load_settings
from shared.tenant_weights import parse_tenant_weights


def test_weights_are_separated_by_commas_or_spaces() -> None:
    assert parse_tenant_weights(["red=4, blue-2=0.5", "key-0123456789ab=1000\nx=0.001"]) == {
        "red": 4,
        "blue-2": 0.5,
        "key-0123456789ab": 1000,
        "x": 0.001,
    }


@pytest.mark.parametrize(
    "bad",
    [
        "red",
        "red=",
        "=4",
        "red=-1",
        "red=1e3",
        "red=inf",
        "red=nan",
        "red=.5",
        "r d=1",
        "red:4",
        "x=1=2",
    ],
)
def test_another_form_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"--tenant-weight '.*: isn't NAME=WEIGHT"):
        parse_tenant_weights([bad])


@pytest.mark.parametrize("bad", ["red=0", "red=0.0009", "red=1000.1", "red=1" + "0" * 400])
def test_a_weight_that_is_too_small_or_too_large_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"must be from 0.001 to 1000"):
        parse_tenant_weights([bad])


def test_a_tenant_has_one_weight() -> None:
    assert parse_tenant_weights(["red=4", "red=4.0"]) == {"red": 4}
    with pytest.raises(SettingsError, match="the tenant red has two weights"):
        parse_tenant_weights(["red=4 red=5"])


def test_the_setting_comes_from_flags_or_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(ApiSettings).weight_by_tenant == {}
    given = load_settings(ApiSettings, tenant_weights=["red=4", "blue=2"])
    assert given.weight_by_tenant == {"red": 4, "blue": 2}
    monkeypatch.setenv("LORIKEET_TENANT_WEIGHTS", "red=4, blue=2")
    assert load_settings(ApiSettings).weight_by_tenant == {"red": 4, "blue": 2}
    monkeypatch.setenv("LORIKEET_TENANT_WEIGHTS", "red=0")
    with pytest.raises(SettingsError, match="red=0"):
        load_settings(ApiSettings)
