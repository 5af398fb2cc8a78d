from pathlib import Path
from typing import Any

import pytest

from shared.api_keys import ApiKey, api_keys, is_loopback, metrics_key
from shared.errors import SettingsError
from shared.settings import ApiSettings, load_settings

A, B = "a" * 24, "b" * 24


def keys(**given: Any) -> tuple[ApiKey, ...]:
    return api_keys(load_settings(ApiSettings, **given))


def test_a_key_is_given_for_a_tenant() -> None:
    assert keys(api_keys=[f"red:{A}", f"blue-2:{B}"]) == (ApiKey("red", A), ApiKey("blue-2", B))


def test_a_tenant_without_a_name_is_identified_by_a_hash_of_its_key() -> None:
    first, second = keys(api_keys=[A, B])
    assert (first.secret, second.secret) == (A, B)
    assert first.tenant.startswith("key-")
    assert first.tenant != second.tenant
    assert first == keys(api_keys=[A])[0]


def test_a_tenant_may_have_several_keys() -> None:
    assert [key.tenant for key in keys(api_keys=[f"red:{A}", f"red:{B}"])] == ["red", "red"]


def test_a_key_with_a_tenant_may_contain_a_colon() -> None:
    assert keys(api_keys=[f"red:{A}:{B}"]) == (ApiKey("red", f"{A}:{B}"),)


@pytest.mark.parametrize("text", [f"{A},red:{B}", f"{A} red:{B}", f" {A}\n,red:{B}, "])
def test_the_variable_holds_keys_separated_by_commas_or_spaces(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LORIKEET_API_KEYS", text)
    assert [key.secret for key in keys()] == [A, B]


def test_a_file_contains_one_key_per_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"red:{A}\n\n{B}\n")
    assert [key.secret for key in keys(api_key_file=file)] == [A, B]
    assert len(keys(api_key_file=file, api_keys=["green:" + "c" * 16])) == 3


def test_a_file_that_cant_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"--api-key-file: can't read {tmp_path}/nothing: "):
        keys(api_key_file=tmp_path / "nothing")


@pytest.mark.parametrize("bad", ["tiny", "red:tiny", f"re.d:{A}", f":{A}", "é" * 20])
def test_an_invalid_key_is_named_by_its_position_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match="--api-key: key 2 is") as refused:
        keys(api_keys=[A, bad])
    assert bad.removeprefix("red:") not in str(refused.value)


def test_one_key_for_two_tenants_is_refused() -> None:
    with pytest.raises(SettingsError, match="tenants red and blue have the same key"):
        keys(api_keys=[f"red:{A}", f"blue:{A}"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_keys_only_this_machine_is_served(host: str) -> None:
    assert is_loopback(host)
    assert keys(host=host) == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.1.nip"])
def test_without_keys_the_network_is_refused_unless_asked_for(host: str) -> None:
    with pytest.raises(SettingsError, match=r"needs API keys: give --api-key .*--allow-anonymous"):
        keys(host=host)
    assert keys(host=host, allow_anonymous=True) == ()
    assert len(keys(host=host, api_keys=[A])) == 1


def test_keys_with_allow_anonymous_are_refused() -> None:
    with pytest.raises(SettingsError, match="--allow-anonymous and --api-key contradict"):
        keys(api_keys=[A], allow_anonymous=True)


def test_the_repr_of_settings_does_not_contain_keys() -> None:
    settings = load_settings(ApiSettings, api_keys=[f"red:{A}"], metrics_key=B)
    assert A not in repr(settings)
    assert B not in repr(settings)
    assert A not in repr(api_keys(settings))


def key_of_metrics(**given: Any) -> str | None:
    settings = load_settings(ApiSettings, **given)
    return metrics_key(settings, api_keys(settings))


def test_metrics_may_have_a_separate_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of_metrics(metrics_key=B, api_keys=[f"red:{A}"]) == B
    assert key_of_metrics() is None
    monkeypatch.setenv("LORIKEET_METRICS_KEY", B)
    assert key_of_metrics() == B
    monkeypatch.setenv("LORIKEET_METRICS_KEY", "")
    assert key_of_metrics() is None


@pytest.mark.parametrize("bad", ["b" * 15, "b" * 20 + "\xe9", "b" * 10 + " " + "b" * 10, A])
def test_a_metrics_key_that_is_malformed_or_an_api_key_is_refused_and_not_shown(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"--metrics-key: (the key|only)") as refused:
        key_of_metrics(metrics_key=bad, api_keys=[f"red:{A}"])
    assert bad not in str(refused.value)
