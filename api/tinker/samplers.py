"""Samplers: models with ids, from which every front end can read the models' names. Pure."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from shared.errors import invalid_value

PATH_PREFIX = "tinker://"
"""Prefix of an adapter's path in the client. The rest of the path is the adapter's name."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """A model that a client samples from."""

    session: str
    """Unique text. It ensures that requests to different samplers never have equal ids."""
    model: str

    @property
    def id(self) -> str:
        """Id of the sampler. It contains the model's name, so no process has to keep it."""
        return f"{self.session}:{urlsafe_b64encode(self.model.encode()).decode().rstrip('=')}"


def parse_sampler(sampler_id: str, param: str) -> Sampler:
    """Return the sampler with this id.

    Raises:
        JobFailed: it isn't an id of this server. The error names `param`.
    """
    session, _, encoded = sampler_id.rpartition(":")
    try:
        model = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        model = ""
    if not session or not model:
        raise invalid_value(f"{param}: isn't the id of a sampler of this server", param)
    return Sampler(session, model)
