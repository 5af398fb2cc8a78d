"""Archives in memory, some of which no honest program would write."""

import gzip
import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FORMATS = ("zip", "tar", "tar.gz")


@dataclass(frozen=True)
class Member:
    name: str
    content: bytes = b""
    link: str | None = None
    """Target of a symbolic link."""
    kind: bytes = tarfile.REGTYPE
    """Type of a tar's member."""


def archive(format_: str, members: Iterable[Member]) -> bytes:
    """Return an archive in one of FORMATS."""
    return PACKERS[format_](members)


def zip_of(members: Iterable[Member], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", method) as file:
        warnings.simplefilter("ignore")  # of two members with one name
        for member in members:
            info = zipfile.ZipInfo(member.name)
            info.filename = member.name  # the constructor replaces some characters
            info.compress_type = method
            mode = 0o120777 if member.link else 0o100644
            info.external_attr = mode << 16
            file.writestr(info, member.link.encode() if member.link else member.content)
    return packed.getvalue()


def tar_of(members: Iterable[Member]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as file:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type = (
                tarfile.SYMTYPE if member.link and member.kind == tarfile.REGTYPE else member.kind
            )
            info.linkname = member.link or ""
            info.size = len(member.content)
            file.addfile(info, io.BytesIO(member.content))
    return packed.getvalue()


def tar_gz_of(members: Iterable[Member]) -> bytes:
    return gzip.compress(tar_of(members))


def raw_tar_header(name: str, type_: bytes, size: int) -> bytes:
    """Return one header of a tar with any stated size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = type_, size
    return info.tobuf(tarfile.USTAR_FORMAT)


PACKERS: dict[str, Callable[[Iterable[Member]], bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
    "tar.gz": tar_gz_of,
}
