"""Adapters at URLs that a worker reads, and addresses that it connects to."""

import hashlib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from archives import FORMATS, Member, archive
from attacks import PRIVATE
from s3_server import BUCKET, S3Server
from source_worker import source_reader, tree
from web_server import WebServer, redirects, response, sends, web_server

from shared.errors import (
    AdapterRejected,
    ErrorCode,
    JobError,
    SettingsError,
    SourceFailed,
    StoreFailed,
)
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.protocol.adapters import Adapter
from shared.store.adapters.inspections import Inspection
from worker.adapters.disk_store import AdapterStore
from worker.adapters.remote import buckets
from worker.adapters.remote.allowed_urls import AllowedUrls
from worker.adapters.source.reader import AdapterReader
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter_files import AdapterFiles

Make = Callable[..., AdapterReader]
LOCAL = AddressCheck(["localhost"])


@pytest.fixture
def make(base: BaseModules, store: AdapterStore, web: WebServer) -> Make:
    def make_one(*roots: str, other_store: AdapterStore | None = None) -> AdapterReader:
        allowed = roots or (f"http://localhost:{web.port}", f"s3://{BUCKET}")
        return source_reader(base, other_store or store, allowed, LOCAL)

    return make_one


@pytest.fixture
def reader(make: Make, s3_env: None) -> AdapterReader:
    return make()


@pytest.fixture
def s3_env(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)


def found(reader: AdapterReader, source: str, name: str = "a") -> Adapter:
    findings = reader.inspect(Inspection(name=name, source=source))
    assert findings.adapter is not None, findings.error
    return findings.adapter


def refused(reader: AdapterReader, source: str) -> JobError:
    findings = reader.inspect(Inspection(name="a", source=source))
    assert findings.adapter is None
    assert findings.error is not None
    return findings.error


def packed(folder: Path, format_: str = "zip", home: str = "") -> bytes:
    members = [Member(home + file.name, file.read_bytes()) for file in folder.iterdir()]
    extra = [Member(f"{home}README.md", b"text"), Member(f"{home}tokenizer.json", b"{}")]
    return archive(format_, [*members, *extra])


def digest_of(reader: AdapterReader, folder: Path) -> str:
    """Digest of the same adapter as a local folder."""
    return reader._read_source("a", AdapterFiles(folder)).weights.digest


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("home", ["", "sql/", "./"])
def test_an_archive_has_the_version_of_its_files(
    reader: AdapterReader,
    web: WebServer,
    good: Path,
    store: AdapterStore,
    tmp_path: Path,
    format_: str,
    home: str,
) -> None:
    body = packed(good, format_, home)
    web.scripts["/x"] = sends(response(body))
    url = f"http://localhost:{web.port}/x?signature=secret"
    entry = found(reader, url)
    assert entry.digest == digest_of(reader, good)
    assert entry.source == url
    assert [copy.digest for copy in store.copies()] == [entry.digest]
    assert not list((tmp_path / "store").glob(".new-*"))
    copy = store.folder_of(entry.digest)
    assert {path.name for path in copy.iterdir()} == {
        *(file.name for file in good.iterdir() if file.name != "README.md"),
        ".version",
    }


def test_redirects_are_followed_and_chunked_bodies_are_read(
    reader: AdapterReader, web: WebServer, good: Path
) -> None:
    body = packed(good)
    chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    web.scripts["/old.zip"] = redirects("/moved/new.zip?x=1", 307)
    web.scripts["/moved/new.zip"] = sends(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
    )
    assert found(reader, f"http://localhost:{web.port}/old.zip")


def test_a_server_or_a_store_that_is_down_or_fails_is_unavailable(
    make: Make, web: WebServer, store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    fsspec.filesystem("s3").clear_instance_cache()
    servers = [f"http://localhost:{port}" for port in (web.port, 9)]
    sources = [*servers, "http://no-such.invalid", f"s3://{BUCKET}"]
    reader = make(*sources)
    web.scripts["/x.zip"] = sends(response(b"", "500 Failed"))
    try:
        for source in sources:
            error = refused(reader, f"{source}/x.zip")
            assert (error.code, error.status) == (ErrorCode.UNAVAILABLE, 503)
        assert "127.0.0.1" not in error.message, "it doesn't tell where the store is"
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
    assert store.copies() == []


def test_a_certificate_must_be_valid_and_of_the_host(
    make: Make, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files, "-subj", *subject], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with web_server(tls) as web:
        web.scripts["/x.zip"] = sends(response(packed(good)))
        url = f"https://localhost:{web.port}"
        reader = make(url, f"https://127.0.0.1:{web.port}")
        error = refused(reader, f"{url}/x.zip")
        assert error.code is ErrorCode.ADAPTER_REJECTED
        assert "certificate isn't valid: self-signed" in error.message
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr("shared.guarded_fetch.web._tls", lambda: trusting)
        assert found(reader, f"{url}/x.zip")
        addresses = AddressCheck(["127.0.0.1"])
        monkeypatch.setattr(reader.stager, "_addresses", addresses)
        error = refused(reader, f"https://127.0.0.1:{web.port}/x.zip")
        assert "certificate isn't valid" in error.message
        assert [path for _, path in web.requests] == ["/x.zip"]


def test_folders_and_archives_of_a_bucket_are_read_below_allowed_paths_or_by_the_settings(
    base: BaseModules, make: Make, store: AdapterStore, s3: S3Server, s3_env: None, good: Path
) -> None:
    bucket, body = f"s3://{BUCKET}", packed(good)
    for path in ("team/sql", "team-two/sql", "private/sql"):
        s3.put_folder(good, path)
    s3.put({"team/sql/README.md": b"text", "team/sql/optimizer.pt": b"x", "team/sql/deep/x": b""})
    s3.put({"team/packed.zip": body})
    reader = make(f"{bucket}/team")
    entry = found(reader, f"{bucket}/team/sql")
    assert entry.digest == digest_of(reader, good)
    assert found(reader, f"{bucket}/team/sql/").version == entry.version
    url = f"{bucket}/team/packed.zip"
    assert found(reader, url).version == entry.version
    assert found(reader, f"{url}#sha256={hashlib.sha256(body).hexdigest()}")
    assert "its SHA-256 is" in refused(reader, f"{url}#sha256={'1' * 64}").message
    for path in (f"{bucket}/private/sql", f"{bucket}/team-two/sql", "s3://other/team/sql"):
        assert refused(reader, path).code is ErrorCode.SOURCE_NOT_ALLOWED
    given = f"{bucket}/private/sql"
    operators = source_reader(base, store, [], LOCAL, at_start=[given])
    assert operators.read("a", given).weights.source == given
    assert refused(operators, f"{bucket}/team/sql").code is ErrorCode.SOURCE_NOT_ALLOWED


def test_what_a_bucket_does_not_have_is_not_found(
    reader: AdapterReader, s3: S3Server, store: AdapterStore
) -> None:
    s3.put({"empty/README.md": b"text"})
    for path in ("no-such", "no-such.zip", "empty", "team/no-such"):
        error = refused(reader, f"s3://{BUCKET}/{path}")
        assert (error.code, error.status) == (ErrorCode.SOURCE_NOT_FOUND, 404), path
    assert store.copies() == []


@pytest.mark.slow
def test_bad_folders_of_a_bucket_are_refused(
    reader: AdapterReader, s3: S3Server, good: Path, files: dict[str, bytes], tmp_path: Path
) -> None:
    config = {"adapter_config.json": files["adapter_config.json"]}
    bad = {
        "no-weights": (config, "adapter_model.safetensors is missing"),
        "pickled": ({**config, "adapter_model.bin": b"x"}, "can run code when it is read"),
        "huge-config": ({**files, "adapter_config.json": b" " * (2 << 20)}, "more than 1048576"),
        "huge": (
            {**config, "adapter_model.safetensors": bytes(25 << 20)},
            "more than --adapter-download-mb",
        ),
        "header": ({**config, "adapter_model.safetensors": b"\xff" * 99}, "its header has"),
    }
    before = tree(tmp_path)
    for path, (objects, reason) in bad.items():
        s3.put({f"bad/{path}/{name}": content for name, content in objects.items()})
        error = refused(reader, f"s3://{BUCKET}/bad/{path}")
        assert error.code is ErrorCode.ADAPTER_REJECTED
        assert reason in error.message, error.message
    many = {f"bad/many/{number}": b"" for number in range(1001)}
    s3.put(many)
    assert "more than 1000 objects" in refused(reader, f"s3://{BUCKET}/bad/many").message
    s3.put_folder(good, "bad/digest")
    error = refused(reader, f"s3://{BUCKET}/bad/digest#sha256={'0' * 64}")
    assert "a folder has no SHA-256" in error.message
    assert tree(tmp_path) == before


def test_a_folder_that_changes_while_it_is_fetched_is_refused(
    reader: AdapterReader,
    s3: S3Server,
    good: Path,
    other: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    s3.put_folder(good, "moving")
    read = buckets.Bucket.pieces

    def pieces(bucket: buckets.Bucket, name: str = ""):  # type: ignore[no-untyped-def]
        yield from read(bucket, name)
        s3.put_folder(other, "moving")

    monkeypatch.setattr(buckets.Bucket, "pieces", pieces)
    error = refused(reader, f"s3://{BUCKET}/moving")
    assert "was changed while it was fetched" in error.message
    assert not list((tmp_path / "store").iterdir())


def test_another_machine_fetches_the_version_and_refuses_a_changed_one(
    reader: AdapterReader,
    make: Make,
    s3: S3Server,
    good: Path,
    other: Path,
    tmp_path: Path,
) -> None:
    s3.put_folder(good, "shared")
    entry = found(reader, f"s3://{BUCKET}/shared")
    second = make(other_store=AdapterStore(tmp_path / "second", max_bytes=64 << 20))
    assert second.read_version(entry).weights.version == entry.version
    s3.put_folder(other, "shared")
    assert second.read_version(entry).weights.version == entry.version  # from its copy
    third = make(other_store=AdapterStore(tmp_path / "third", max_bytes=64 << 20))
    with pytest.raises(AdapterRejected, match=f"now holds a@.*, not {entry.version}"):
        third.read_version(entry)
    outsider = make("s3://another-bucket", other_store=AdapterStore(tmp_path / "n", max_bytes=1))
    with pytest.raises(AdapterRejected, match="isn't below a URL"):
        outsider.read_version(entry)


def test_a_missing_package_is_named_with_its_extra(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "find_spec", lambda name: None)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs")):
        with pytest.raises(SettingsError, match=rf"pip install 'lorikeet-serve\[{extra}\]'"):
            AllowedUrls([f"{scheme}://bucket"])


def test_a_full_disk_is_unavailable_and_leaves_nothing(
    reader: AdapterReader,
    web: WebServer,
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    web.scripts["/x.zip"] = sends(response(packed(good)))

    def fail(*_: object) -> None:
        raise StoreFailed("--adapter-store: No space left on device")

    monkeypatch.setattr("worker.adapters.remote.new_file._write", fail)
    error = refused(reader, f"http://localhost:{web.port}/x.zip")
    assert error.code is ErrorCode.UNAVAILABLE
    assert not list((tmp_path / "store").iterdir())


PUBLIC = "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"


def test_all_addresses_of_a_name_must_be_public_unless_the_name_is_allowed() -> None:
    def check_of(*addresses: str) -> AddressCheck:
        return AddressCheck(["Files.Internal"], resolve=lambda host, port: addresses)

    assert check_of(*PUBLIC).addresses("name.test", 443) == PUBLIC
    for private in PRIVATE:
        with pytest.raises(SourceFailed, match="isn't public") as refusal:
            check_of(*PUBLIC, private).addresses("name.test", 443)
        assert refusal.value.code is ErrorCode.SOURCE_NOT_ALLOWED
    check = check_of("10.0.0.1")
    assert check.addresses("files.internal", 443) == ("10.0.0.1",)
    for host in ("other.internal", "10.0.0.1", "sub.files.internal"):
        with pytest.raises(SourceFailed, match="isn't public"):
            check.addresses(host, 443)
