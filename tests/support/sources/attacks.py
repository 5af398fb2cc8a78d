"""Over 200 attacks with archives, URLs, redirects, addresses and uploads.

Each has the status of the response and a pattern of the reason in it.
"""

import gzip
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from archives import FORMATS, Member, archive, raw_tar_header, tar_gz_of, tar_of, zip_of
from web_server import Script, drips, floods, redirects, response, sends

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MIB = 1 << 20
PICKLE = pickle.dumps({"lora_A": [1.0]})
OUTSIDE = "/tmp/lorikeet-attack"
"""Absolute path that attacks try to write."""
REJECTED = "adapter_rejected"
NOT_ALLOWED = "source_not_allowed"
INVALID = "invalid_value"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Attack:
    """A URL, what the server there does, and how the attack must be refused."""

    name: str
    reason: str
    status: int = 400
    code: str = REJECTED
    url: str = "http://{host}/adapters/x.zip"
    """URL in which `{host}` is the allowed host with its port, and `{port}` the port alone."""
    script: Callable[[Files], Script] | None = None
    """Makes the server's answer at /adapters/x.zip from the files of a valid adapter."""
    addresses: tuple[tuple[str, ...], ...] = ()
    """Addresses of the name `name.test`, for one resolution after another."""


def _body(make: Callable[[Files], bytes]) -> Callable[[Files], Script]:
    return lambda files: sends(response(make(files)))


def _good(files: Files) -> list[Member]:
    return [Member(name, content) for name, content in files.items()]


def _archive(format_: str, members: Callable[[Files], list[Member]]) -> Callable[[Files], Script]:
    return _body(lambda files: archive(format_, members(files)))


def _with(*members: Member, format_: str) -> Callable[[Files], Script]:
    return _archive(format_, lambda files: [*_good(files), *members])


def _weights(format_: str, weights: bytes) -> Callable[[Files], Script]:
    """Put other weights beside the valid configuration."""
    return _archive(
        format_, lambda files: [Member(CONFIG, files[CONFIG]), Member(WEIGHTS, weights)]
    )


NOT_A_PATH = "a path that isn't allowed"
_PATHS = (
    "../evil.jinja",
    "../../../../evil.jinja",
    "a/../../evil.jinja",
    "a/b/../../../evil.jinja",
    f"{OUTSIDE}/evil.jinja",
    "/etc/cron.d/evil",
    "..\\evil.jinja",
    "C:\\evil.jinja",
    "C:/evil.jinja",
    "./../evil.jinja",
    "..",
    "a/..",
    "new\nline.jinja",
    f"../{CONFIG}",
)
LINK = "a link or special file"


def paths() -> Iterator[Attack]:
    for format_ in FORMATS:
        for path in _PATHS:
            make = _with(Member(path, b"evil"), format_=format_)
            yield Attack(f"path {path!r} in {format_}", NOT_A_PATH, script=make)


def links() -> Iterator[Attack]:
    targets = ("/etc/passwd", "../../x", OUTSIDE, CONFIG)
    for format_ in FORMATS:
        for target in targets:
            member = Member("chat_template.jinja", link=target)
            make = _with(member, format_=format_)
            yield Attack(f"link to {target} in {format_}", LINK, script=make)
        through = Member("folder", link=OUTSIDE), Member("folder/x.jinja", b"evil")
        yield Attack(
            f"file below a link in {format_}", LINK, script=_with(*through, format_=format_)
        )
        make = _archive(format_, lambda _: [Member(CONFIG, link="/etc/passwd")])
        yield Attack(f"linked config in {format_}", LINK, script=make)
    kinds = {
        "hard link": tarfile.LNKTYPE,
        "character device": tarfile.CHRTYPE,
        "block device": tarfile.BLKTYPE,
        "pipe": tarfile.FIFOTYPE,
    }
    for format_ in ("tar", "tar.gz"):
        for name, kind in kinds.items():
            make = _with(Member("x.jinja", kind=kind, link="/etc/passwd"), format_=format_)
            yield Attack(f"{name} in {format_}", LINK, script=make)


def _zeros(format_: str, size: int) -> Callable[[Files], Script]:
    return _archive(
        format_, lambda files: [Member(CONFIG, files[CONFIG]), Member(WEIGHTS, bytes(size))]
    )


def pickles() -> Iterator[Attack]:
    names = ("adapter_model.bin", "sql/adapter_model.BIN", "training_args.bin", "optimizer.pt")
    names += ("x.pth", "x.pkl", "deep/er/than/that/x.pickle", "x.ckpt")
    for format_ in FORMATS:
        for name in names:
            make = _with(Member(name, PICKLE), format_=format_)
            yield Attack(f"{name} in {format_}", "a pickle, which can run code", script=make)
        make = _weights(format_, PICKLE)
        yield Attack(f"pickled weights in {format_}", "header|truncated", script=make)


def _lying_zip(files: Files) -> bytes:
    """Return a zip whose headers say that 40 MiB of zeros are ten bytes."""
    packed = zip_of([Member(CONFIG, files[CONFIG]), Member(WEIGHTS, bytes(40 * MIB))])
    return packed.replace(struct.pack("<L", 40 * MIB), struct.pack("<L", 10))


def _patched_zip(old: bytes, new: bytes) -> Callable[[Files], Script]:
    return _body(lambda files: zip_of(_good(files)).replace(old, new))


def _overlapping(files: Files) -> bytes:
    """Return a zip whose list names the same compressed bytes many times."""
    packed = zip_of([Member("a.jinja", bytes(MIB))])
    end = packed.rindex(b"PK\5\6")
    (at,) = struct.unpack("<L", packed[end + 16 : end + 20])
    entry = packed[at:end]
    entries = b"".join(entry.replace(b"a.jinja", b"%c.jinja" % (65 + n)) for n in range(50))
    tail = bytearray(packed[end:])
    struct.pack_into("<HHL", tail, 8, 50, 50, len(entries))
    return packed[:at] + entries + bytes(tail)


@cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(60 * MIB))


def bombs() -> Iterator[Attack]:
    for format_ in FORMATS:
        reason = "unpacks to more bytes|has \\d+ bytes, more|over 200 times"
        yield Attack(f"zeros in {format_}", reason, script=_zeros(format_, 40 * MIB))
        many = [Member(f"{number}.txt") for number in range(1001)]
        reason = "more than 1000 members"
        yield Attack(f"many members in {format_}", reason, script=_with(*many, format_=format_))
        big = Member("chat_template.jinja", bytes(30 * MIB))
        make = _with(big, format_=format_)
        reason = "over 200 times|more than --adapter-download-mb|more than 2097152 bytes"
        yield Attack(f"large template in {format_}", reason, script=make)
    for size in (18, 20, 23):
        reason = "over 200 times its size"
        yield Attack(f"{size} MiB of zeros", reason, script=_zeros("zip", size * MIB))
        yield Attack(f"{size} MiB of zeros, gzip", reason, script=_zeros("tar.gz", size * MIB))
    yield Attack("a zip that lies about sizes", "malformed", script=_body(_lying_zip))
    yield Attack(
        "overlapping members", "malformed|over 200|neither|missing", script=_body(_overlapping)
    )
    gz = _gzip_bomb()
    yield Attack("a gzip of zeros", "over 200 times|more bytes", script=_body(lambda _: gz))
    parts = gzip.compress(bytes(MIB)) * 60
    yield Attack("a gzip of many parts", "over 200 times|more bytes", script=_body(lambda _: parts))
    nested = gzip.compress(gz)
    yield Attack("a gzip in a gzip", "malformed", script=_body(lambda _: nested))
    names = [Member("x" * 60_000 + str(number)) for number in range(20)]
    yield Attack(
        "a long list of members", "list of members has more", script=_with(*names, format_="zip")
    )
    encrypted = _patched_zip(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0")
    yield Attack("an encrypted zip", "which is encrypted", script=encrypted)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        make = _body(lambda files, method=method: zip_of(_good(files), method))
        yield Attack(f"zip method {method}", "neither stored nor deflated", script=make)


def malformed() -> Iterator[Attack]:
    for format_ in FORMATS:
        for part in (0.1, 0.3, 0.5):
            make = _body(
                lambda files, f=format_, part=part: (lambda whole: whole[: int(len(whole) * part)])(
                    archive(f, _good(files))
                )
            )
            reason = "malformed|isn't a zip|missing|truncated"
            yield Attack(f"{part:.0%} of a {format_}", reason, script=make)
    bodies = {
        "nothing": b"",
        "random bytes": bytes(range(256)) * 10,
        "a web page": b"<html>not found</html>",
        "xz": lzma.compress(b"x" * 1000),
        "bzip2": b"BZh91AY&SY" + bytes(100),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "rar": b"Rar!\x1a\7\0" + bytes(100),
        "a pickle": PICKLE,
        "an ELF": b"\x7fELF" + bytes(600),
    }
    for name, body in bodies.items():
        yield Attack(
            f"{name} instead of an archive", "isn't a zip", script=_body(lambda _, b=body: b)
        )
    yield Attack("gzip of text", "malformed", script=_body(lambda _: gzip.compress(b"hello" * 99)))
    yield Attack(
        "a zip without its end", "malformed", script=_body(lambda _: b"PK\3\4" + bytes(99))
    )
    yield Attack(
        "only weights, no archive", "isn't a zip", script=_body(lambda files: files[WEIGHTS])
    )
    yield Attack("a wrong checksum", "malformed", script=_body(_with_wrong_checksum))


def _with_wrong_checksum(files: Files) -> bytes:
    packed = zip_of(_good(files), zipfile.ZIP_STORED)
    at = packed.index(files[WEIGHTS]) + len(files[WEIGHTS]) - 8
    return packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]


def _below(folder: str, files: Files) -> list[Member]:
    return [Member(f"{folder}/{name}", content) for name, content in files.items()]


def _without(missing: str, files: Files) -> list[Member]:
    return [member for member in _good(files) if member.name != missing]


def contents() -> Iterator[Attack]:
    for format_ in FORMATS:
        twice = _archive(format_, lambda files: [*_good(files), Member(CONFIG, files[CONFIG])])
        yield Attack(f"a file twice in {format_}", f"it has {CONFIG} twice", script=twice)
        two = _archive(format_, lambda files: [*_below("a", files), *_below("b", files)])
        yield Attack(f"two adapters in {format_}", "has adapters in both a and b", script=two)
        for missing in (CONFIG, WEIGHTS):
            make = _archive(format_, partial(_without, missing))
            yield Attack(f"no {missing} in {format_}", f"{missing} is missing", script=make)
        deep = _archive(format_, partial(_below, "a/b/c"))
        yield Attack(f"too deep in {format_}", "is missing", script=deep)
        for name, weights, reason in _WEIGHTS:
            yield Attack(f"{name} in {format_}", reason, script=_weights(format_, weights))
        huge = Member(CONFIG, b" " * (2 << 20))
        make = _archive(format_, lambda files, huge=huge: [huge, *_without(CONFIG, files)])
        yield Attack(f"a huge config in {format_}", "more than 1048576 bytes", script=make)


_WEIGHTS = (
    ("a huge stated header", struct.pack("<Q", 1 << 60) + b"{}", "its header has"),
    ("a header beyond the file", struct.pack("<Q", 1 << 20) + b"{}", "truncated within its header"),
    (
        "a header of 17 MiB",
        struct.pack("<Q", 17 << 20) + bytes(range(256)) * (17 << 12),
        "its header has|isn't JSON|over 200 times",
    ),
    ("a deep header", struct.pack("<Q", 200_000) + b"[" * 200_000, "has more than 163840 arrays"),
)


def _sparse(files: Files) -> bytes:
    info = tarfile.TarInfo(WEIGHTS)
    info.type = tarfile.GNUTYPE_SPARSE
    return info.tobuf(tarfile.GNU_FORMAT) + tar_of([Member(CONFIG, files[CONFIG])])


_HUGE = 2 << 20
_HEADERS = {
    "a huge extended header": raw_tar_header("pax", tarfile.XHDTYPE, _HUGE) + b"9" * _HUGE,
    "a huge stated extended header": raw_tar_header("pax", tarfile.XHDTYPE, 7 << 30),
    "a huge global header": raw_tar_header("pax", tarfile.XGLTYPE, _HUGE) + b"9" * _HUGE,
    "a huge long name": raw_tar_header("long", tarfile.GNUTYPE_LONGNAME, _HUGE) + b"a" * _HUGE,
    "a huge long link": raw_tar_header("long", tarfile.GNUTYPE_LONGLINK, _HUGE) + b"a" * _HUGE,
}


def tar_headers() -> Iterator[Attack]:
    many = (raw_tar_header("pax", tarfile.XHDTYPE, 512) + b"9" * 512) * 3000
    made: dict[str, tuple[Callable[[Files], bytes], str]] = {
        "many extended headers": (lambda files: many + tar_of(_good(files)), "malformed"),
        "a sparse file": (_sparse, "a link or special file|malformed"),
        "a bad checksum": (
            lambda files: tar_of(_good(files)).replace(b"0000644", b"0000777"),
            "malformed",
        ),
    }
    for name, header in _HEADERS.items():
        make = partial(lambda header, files: header + tar_of(_good(files)), header)
        made[name] = make, "header of more than"
    for name, (make, reason) in made.items():
        yield Attack(f"{name} in tar", reason, script=_body(make))
        packed = _body(lambda files, make=make: gzip.compress(make(files)))
        yield Attack(f"{name} in tar.gz", reason + "|over 200 times", script=packed)


def _zipped(files: Files) -> bytes:
    return zip_of(_good(files))


_OK = b"HTTP/1.1 200 OK\r\n"
_NO_HTTP = {
    "a huge header": response(b"", headers=f"X-A: {'a' * (1 << 20)}\r\n"),
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "nothing at all": b"",
    "a bad length": _OK + b"Content-Length: x\r\n\r\n",
    "two lengths": _OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}
"""Responses that aren't valid HTTP."""
_TOO_MANY = "has more bytes than --adapter-download-mb allows"
_ENDLESS = {
    "an endless body": (_OK + b"\r\n", bytes(MIB), _TOO_MANY),
    "endless chunks": (
        _OK + b"Transfer-Encoding: chunked\r\n\r\n",
        b"100000\r\n" + bytes(MIB) + b"\r\n",
        _TOO_MANY,
    ),
    "endless headers": (_OK, b"X-A: " + b"a" * 1000 + b"\r\n", "isn't valid HTTP"),
    "endless interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "took longer"),
}
"""Beginnings, pieces that are repeated without end, and reasons of the refusals."""


def http() -> Iterator[Attack]:
    for name, raw_response in _NO_HTTP.items():
        yield Attack(name, "isn't valid HTTP", script=lambda _, raw=raw_response: sends(raw))
    for name, (head, piece, reason) in _ENDLESS.items():
        yield Attack(name, reason, script=lambda _, h=head, p=piece: floods(h, p))
    raw: dict[str, tuple[Callable[[Files], Script], str]] = {
        "a stated length of 9 GB": (
            lambda files: sends(response(_zipped(files), length=9 * 10**9)),
            "has 9000000000 bytes, more than --adapter-download-mb allows",
        ),
        "a body that ends early": (
            lambda files: sends(response(_zipped(files)[:-10], length=len(_zipped(files)))),
            "isn't valid HTTP",
        ),
        "a gzipped body": (
            lambda files: sends(
                response(gzip.compress(_zipped(files)), headers="Content-Encoding: gzip\r\n")
            ),
            "encoded it as 'gzip'",
        ),
        "a length of 5000 digits": (
            lambda _: sends(_OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
            "isn't valid HTTP|can't be read|more than --adapter-download-mb",
        ),
        "slow headers": (lambda _: drips(_OK + b"X: a\r\n" * 500), "took longer"),
        "a slow body": (lambda files: drips(response(_zipped(files))), "took longer"),
        "redirects without end": (
            lambda _: redirects("http://{host}/adapters/x.zip"),
            "redirects more than 5 times",
        ),
    }
    for name, (script, reason) in raw.items():
        yield Attack(name, reason, script=script)
    for given in (400, 401, 403, 404, 405, 410, 451, 204, 206, 304):
        status, code = (404, "source_not_found") if given in (404, 410) else (403, NOT_ALLOWED)
        reply = response(b"", f"{given} No")
        if given < 400:
            reply = f"HTTP/1.1 {given} X\r\n\r\n".encode()
        yield Attack(
            f"status {given}",
            f"status {given}",
            status=status,
            code=code,
            script=lambda _, r=reply: sends(r),
        )


_REDIRECTS = (
    "http://127.0.0.1:{port}/adapters/x.zip",
    "http://[::1]:{port}/adapters/x.zip",
    "http://169.254.169.254/latest/meta-data/",
    "http://10.0.0.1/x.zip",
    "http://192.168.1.1/x.zip",
    "http://0.0.0.0:{port}/adapters/x.zip",
    "http://0:{port}/adapters/x.zip",
    "http://2130706433:{port}/adapters/x.zip",
    "http://0x7f000001:{port}/adapters/x.zip",
    "http://017700000001:{port}/adapters/x.zip",
    "http://127.1:{port}/adapters/x.zip",
    "http://metadata.google.internal/computeMetadata/v1/",
    "//127.0.0.1:{port}/adapters/x.zip",
    "https://{host}/adapters/x.zip",
    "http://localhost:1/adapters/x.zip",
    "http://user:password@{host}/adapters/x.zip",
    "http://{host}@127.0.0.1/adapters/x.zip",
    "/other/x.zip",
    "/adapters/../other/x.zip",
    "/adapters/%2e%2e/other/x.zip",
    "/adapters-of-others/x.zip",
    "file:///etc/passwd",
    "ftp://{host}/adapters/x.zip",
    "gopher://{host}/x",
    "s3://bucket/x.zip",
    "data:application/zip;base64,UEsDBA==",
    "http:///x.zip",
    "http://[",
    "http://exa mple/x",
    "http:\\\\127.0.0.1\\x",
)


def redirected() -> Iterator[Attack]:
    for number, target in enumerate(_REDIRECTS):
        status = (301, 302, 303, 307, 308)[number % 5]
        yield Attack(
            f"redirect {status} to {target}",
            "isn't below a URL|it redirects to",
            status=403,
            code=NOT_ALLOWED,
            script=lambda _, t=target, s=status: redirects(t, s),
        )


PRIVATE = (
    *("127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "0.0.0.0", "198.18.0.1", "192.0.2.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "::127.0.0.1"),
    *("2001:db8::1", "2001:0:7f00:1::1", "64:ff9b::a9fe:a9fe"),
)


def addresses() -> Iterator[Attack]:
    refused: dict[str, Any] = {"status": 403, "code": NOT_ALLOWED}
    url = "http://name.test:{port}/adapters/x.zip"
    for address in PRIVATE:
        yield Attack(
            f"name of {address}", "isn't public", url=url, addresses=((address,),), **refused
        )
    for number, mixed in enumerate((("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8"))):
        yield Attack(f"mixed {number}", "isn't public", url=url, addresses=(mixed,), **refused)
    # The tests take 127.0.0.2 for a public address.
    for number, private in enumerate(("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1")):
        yield Attack(
            f"rebinding to {private}",
            f"has the address {private}, which isn't public",
            url=url,
            addresses=(("127.0.0.2",), (private,)),
            script=lambda _, n=number: redirects(
                "http://name.test:{port}/adapters/again.zip", 301 + n % 2
            ),
            **refused,
        )


_URLS = (
    ("http://{host}/adapters/../x.zip", 400, "its path has the part '..'"),
    ("http://{host}/adapters/%2e%2e/x.zip", 400, "its path has the part"),
    ("http://{host}/adapters/.%2E/x.zip", 400, "its path has the part"),
    ("http://{host}/adapters/..%2fx.zip", 400, "its path has the part"),
    ("http://{host}/adapters/%5c..%5cx.zip", 400, "its path has the part"),
    ("http://{host}/adapters/%252e%252e/x.zip", 400, "its path has the part"),
    ("http://{host}/adapters/./x.zip", 400, "its path has the part"),
    ("http://{host}/adapters//x.zip", 400, "its path has the part"),
    ("http://{host}/adapters/%00x.zip", 400, "its path has the part"),
    ("http://{host}/adapters/\\..\\x.zip", 400, "printable ASCII"),
    ("http://{host}/adapters/x y.zip", 400, "printable ASCII"),
    ("http://{host}/adapters/\u0661.zip", 400, "printable ASCII"),
    ("http://{host}/adapters/x.zip\r\nX: y", 400, "printable ASCII"),
    ("http://user:password@{host}/adapters/x.zip", 400, "a user name or password"),
    ("http://{host}@evil.test/adapters/x.zip", 400, "a user name or password"),
    ("http://evil.test/adapters/x.zip", 403, "isn't below a URL"),
    ("http://{host}.evil.test/adapters/x.zip", 400, "isn't a usable URL"),
    ("http://{host}/other/x.zip", 403, "isn't below a URL"),
    ("http://{host}/adapters-of-others/x.zip", 403, "isn't below a URL"),
    ("http://127.0.0.1:{port}/adapters/x.zip", 403, "isn't below a URL"),
    ("http://[::1]:{port}/adapters/x.zip", 403, "isn't below a URL"),
    ("http://[::1/adapters/x.zip", 400, "isn't a usable URL"),
    ("http://2130706433/adapters/x.zip", 403, "isn't below a URL"),
    ("http://169.254.169.254/latest/meta-data/", 403, "isn't below a URL"),
    ("https://{host}/adapters/x.zip", 403, "isn't below a URL"),
    ("http://localhost/adapters/x.zip", 403, "isn't below a URL"),
    ("http://localhost:99999/adapters/x.zip", 400, "isn't a usable URL"),
    ("http://localhost:x/adapters/x.zip", 400, "isn't a usable URL"),
    ("http:///adapters/x.zip", 400, "isn't the name of a host"),
    ("http://..test/x.zip", 400, "isn't the name of a host"),
    ("http://{host}/adapters/x.zip#md5=0", 400, "what follows # must be sha256="),
    ("http://{host}/adapters/x.zip#sha256=12", 400, "what follows # must be sha256="),
    ("s3://other-bucket/x.zip", 403, "isn't below a URL"),
    ("s3://bucket/../other/x.zip", 400, "its path has the part"),
    ("s3://bucket/%2e%2e/x.zip", 400, "percent signs"),
    ("s3://bucket/x.zip?versionId=1", 400, "can't have a query"),
    ("s3://bucket:80/x.zip", 400, "isn't the name of a bucket"),
    ("s3:///x.zip", 400, "isn't the name of a bucket"),
    ("gs://bucket/x.zip", 403, "isn't below a URL"),
    ("HTTP://{host}/adapters/x.zip", 403, "may be loaded"),
    ("file:///etc", 403, "may be loaded"),
    ("ftp://{host}/adapters/x.zip", 403, "may be loaded"),
    ("memory://x", 403, "may be loaded"),
    ("simplecache::http://{host}/adapters/x.zip", 403, "may be loaded"),
    ("zip://x.json::http://{host}/adapters/x.zip", 403, "may be loaded"),
    ("org/repo@../../x", 403, "may be loaded"),
    ("org/repo@main", 403, "may be loaded"),
)


def urls() -> Iterator[Attack]:
    valid = _body(_zipped)
    for url, status, reason in _URLS:
        code = NOT_ALLOWED if status == 403 else INVALID
        yield Attack(f"URL {url}", reason, status=status, code=code, url=url, script=valid)
    for digest in ("0" * 64, "f" * 64):
        url = f"http://{{host}}/adapters/x.zip#sha256={digest}"
        yield Attack(f"digest {digest[:4]}", f"not {digest}", url=url, script=valid)
    url = f"http://{{host}}/adapters/x.zip#sha256={'0' * 64}"
    script = _body(lambda _: _gzip_bomb())
    yield Attack("a bomb with a wrong digest", "its SHA-256 is", url=url, script=script)


ATTACKS = [
    attack
    for family in (
        *(paths, links, pickles, bombs, malformed, contents, tar_headers),
        *(http, redirected, addresses, urls),
    )
    for attack in family()
]


@dataclass(frozen=True)
class BadUpload:
    """A body of POST /v1/adapters that must be refused."""

    name: str
    body: bytes
    reason: str
    config: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)


_LORA = json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]})
UPLOADS = [
    BadUpload("a pickle", PICKLE, "header|truncated", _LORA),
    BadUpload(
        "a torch file", zip_of([Member("archive/data.pkl", PICKLE)]), "header|truncated", _LORA
    ),
    *(BadUpload(name, body, reason, _LORA) for name, body, reason in _WEIGHTS[:2]),
    BadUpload("a deep header", _WEIGHTS[3][1], _WEIGHTS[3][2], _LORA),
    BadUpload("a zip", zip_of([Member(f"../{CONFIG}")]), "header|truncated", _LORA),
    BadUpload("a tar", tar_of([Member(f"../{CONFIG}")]), "header|truncated", _LORA),
    BadUpload("a bomb", tar_gz_of([Member(WEIGHTS, bytes(8 * MIB))]), "header|truncated", _LORA),
    BadUpload("one byte", b"x", "truncated", _LORA),
    BadUpload("no config", PICKLE, "adapter_config.json is missing"),
    BadUpload("a source beside it", PICKLE, "a body or `source`", query={"source": "/etc"}),
    BadUpload("a huge config", PICKLE, "headers", "x" * 60_000),
]
