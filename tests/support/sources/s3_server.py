"""A real S3 server: moto's, in its own process."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import s3fs
from servers import wait_for

from ops.local.ports import free_port

BUCKET = "adapters"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@dataclass
class S3Server:
    """The server, and a client of its own for what tests store in it."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    files: Any

    @property
    def env(self) -> dict[str, str]:
        """Variables with which other processes find the server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Store objects by their path in the bucket."""
        self.files.pipe({f"{BUCKET}/{path}": content for path, content in objects.items()})

    def put_folder(self, folder: Path, path: str) -> None:
        """Store the files of a folder below a path of the bucket."""
        self.put({f"{path}/{file.name}": file.read_bytes() for file in folder.iterdir()})

    def num_requests(self, path: str) -> int:
        """Return how many requests so far had `path` in their URL."""
        return sum(path in line for line in self.log.read_text().splitlines() if '"' in line)

    def stop(self) -> None:
        """Stop the process, so that its port refuses connections."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server with an empty bucket. Its log is in `folder`."""
    port, log = free_port(), folder / "s3.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(url), log.read_text, process)
        files = s3fs.S3FileSystem(
            endpoint_url=url, key="test", secret="secret", skip_instance_cache=True
        )
        files.mkdir(BUCKET)
        yield S3Server(url, process, log, files)
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=5)
    except httpx.TransportError:
        return False
    return True
