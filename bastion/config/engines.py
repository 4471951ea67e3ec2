"""The section `engines`: where the containers are."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from bastion.config.section import InputFile, Name, Seconds, Section


def _engine_url(value: str) -> str:
    if not re.fullmatch(r"unix:///.+|tcp://[^/@\s]+:[0-9]{1,5}", value):
        raise ValueError("unix:///var/run/docker.sock or tcp://host:2376 is right")
    return value


EngineUrl = Annotated[str, AfterValidator(_engine_url)]


class EngineTls(Section):
    """The files that `docker --tlscacert --tlscert --tlskey` takes."""

    ca: InputFile
    cert: InputFile
    key: InputFile


class Engine(Section):
    """One Docker engine (or Podman's socket)."""

    name: Name = "local"
    cluster: Name | None = None  # the `cluster/` in front of an address that names this engine's group
    url: EngineUrl = "unix:///var/run/docker.sock"
    tls: EngineTls | None = None
    timeout: Seconds = 10
    exec_starts: int = Field(8, ge=1)  # at a time
    exec_kills: int = Field(4, ge=1)  # at a time

    @model_validator(mode="after")
    def _tls_over_tcp(self) -> Self:
        if self.tls is not None and not self.url.startswith("tcp://"):
            raise ValueError("tls with a url of tcp://host:2376 is right; over a unix socket there is no TLS")
        return self
