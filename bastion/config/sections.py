"""All sections of the configuration in one."""

import socket
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, field_validator, model_validator
from sqlalchemy.engine import make_url

from bastion.config.access import Access
from bastion.config.audit import Audit, Database
from bastion.config.auth import Auth
from bastion.config.engines import Engine
from bastion.config.places import Places
from bastion.config.recording import Recording
from bastion.config.section import Name, Section, unique
from bastion.config.ssh import Ssh


class Config(Section):
    """All of it."""

    bastion_id: Name = Field(default_factory=socket.gethostname, validate_default=True)
    state_folder: Path = Path("state")  # the control socket, the lock, what waits for the database
    ssh: Ssh = Ssh()
    auth: Auth
    engines: tuple[Engine, ...] = Field((Engine(),), min_length=1)
    access: Access = Access()
    recording: Recording = Recording()
    database: Database = Database()
    audit: Audit = Audit()
    _places: Places = PrivateAttr(default_factory=Places)

    @model_validator(mode="after")
    def _second_factors_can_be_given(self) -> Self:
        if self.auth.totp is None and any(rule.second_factor for rule in self.access.rules):
            raise ValueError("access.rules: second_factor with a section auth.totp is right; else nobody can give one")
        return self

    @model_validator(mode="after")
    def _tokens_for_the_console(self) -> Self:
        if self.access.lain is not None and self.access.lain.console is not None and self.auth.lain is None:
            raise ValueError("access.lain.console with auth.lain is right: it is asked with its tokens")
        return self

    @field_validator("engines")
    @classmethod
    def _each_engine_once(cls, engines: tuple[Engine, ...]) -> tuple[Engine, ...]:
        unique(tuple(engine.name for engine in engines))
        unique(tuple(engine.url for engine in engines))  # else each container would be there twice
        return engines

    def written_at(self, places: Places) -> Self:
        self._places = places
        return self

    @property
    def guarded_folders(self) -> tuple[Path, ...]:
        """Where the trail is, and what says who may enter: no container that has one of them mounted is entered."""
        folders = {self.state_folder, self.recording.folder, *(key.parent for key in self.ssh.host_keys)}
        if self._places.file:
            folders.add(Path(self._places.file).absolute().parent)
        folders |= {file.parent for file in (self.audit.file, self.audit.signing_key, self.audit.anchor) if file}
        if self.auth.local is not None:
            folders.add(self.auth.local.file.parent)
        url = make_url(self.database.url.get_secret_value())
        if url.get_backend_name() == "sqlite" and url.database:
            folders.add(Path(url.database).parent)
        return tuple(sorted(folders))

    def naming_lines(self) -> AbstractContextManager[None]:
        """Where something is only seen to be wrong when it is used: its ConfigError gets the option's file and line."""
        return self._places.named()
