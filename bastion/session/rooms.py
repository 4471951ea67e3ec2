"""What a session works with, handed in by the application."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from bastion import config
from bastion.access.console import Console
from bastion.audit.sessions import SessionRows
from bastion.containers.directory import Directory
from bastion.containers.engine import Engine
from bastion.containers.processes import Reaper
from bastion.recording.store import RecordingStore


@dataclass(frozen=True, slots=True)
class Rooms:
    access: config.Access
    console: Console | None
    directory: Directory
    engines: Mapping[str, Engine]  # by name
    reaper: Reaper
    recordings: RecordingStore
    commands: Executor  # one thread, in which the commands of all sessions are read
    rows: SessionRows
