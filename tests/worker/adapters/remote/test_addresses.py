"""Addresses to which a worker may connect. tests/support/sources/attacks.py has the others."""

import pytest
from attacks import PRIVATE

from shared.errors import ErrorCode, SourceFailed
from worker.adapters.remote.pinned_connection import AddressCheck, is_public

PUBLIC = "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"


def test_public_addresses_are_allowed_and_others_are_not() -> None:
    assert all(is_public(address) for address in PUBLIC)
    assert not any(is_public(address) for address in PRIVATE)


def test_all_addresses_of_a_name_must_be_public() -> None:
    check = AddressCheck(resolve=lambda host, port: PUBLIC)
    assert check.addresses("name.test", 443) == PUBLIC
    for private in PRIVATE:
        check = AddressCheck(resolve=lambda host, port, private=private: [*PUBLIC, private])
        with pytest.raises(SourceFailed, match="isn't public") as refusal:
            check.addresses("name.test", 443)
        assert refusal.value.code is ErrorCode.SOURCE_NOT_ALLOWED


def test_only_named_hosts_may_have_private_addresses() -> None:
    check = AddressCheck(["Files.Internal"], resolve=lambda host, port: ["10.0.0.1"])
    assert check.addresses("files.internal", 443) == ["10.0.0.1"]
    for host in ("other.internal", "10.0.0.1", "sub.files.internal"):
        with pytest.raises(SourceFailed, match="isn't public"):
            check.addresses(host, 443)
