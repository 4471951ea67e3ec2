"""`bastion audit verify --recordings`: is each recording what the log remembers, and where is each that is gone?"""

import time
from collections.abc import Iterable
from pathlib import Path

from bastion.audit.recorded import Recorded, recorded
from bastion.audit.verify import Line
from bastion.config import Config
from bastion.recording.asciicast import RecordingError
from bastion.recording.chain import End
from bastion.recording.files import newest, session_of
from bastion.recording.integrity import verify
from bastion.recording.store import RecordingStore

JUST_BEGUN = 60.0  # seconds: the file is made before the log says so


class Recordings:
    """The files as they are now; to be made before the log is read, so that it knows of all of them."""

    def __init__(self, config: Config) -> None:
        self._files = {session_of(path): path for path in RecordingStore(config.recording).all()}
        self.good = self.pruned = self.older = 0

    def findings(self, lines: Iterable[Line], *, complete: bool) -> list[str]:
        """What is wrong, in words. `complete`: the log begins with its first entry, so that it knows of all."""
        said, found = recorded(lines), []
        for session_id, one in said.items():
            path = self._files.pop(session_id, None)
            wrong = self._held(path, one) if path is not None else self._gone(one)
            if wrong is not None:
                found.append(f"recording {session_id}: {wrong}")
        for session_id, path in self._files.items():
            if not complete:
                self.older += 1
            elif time.time() - newest(path) > JUST_BEGUN:
                found.append(f"recording {session_id}: added: no entry of the log has begun it")
        return found

    def _held(self, path: Path, one: Recorded) -> str | None:
        try:
            finding = verify(path, End(**one.end) if one.end is not None else None).finding
        except (RecordingError, OSError, TypeError) as error:
            return f"can not be read: {error}"
        if finding is None:
            self.good += 1
        return str(finding) if finding is not None else None

    def _gone(self, one: Recorded) -> str | None:
        if one.tombstone is not None:
            if one.end is not None and one.tombstone != one.end:
                return "changed: it did not end where session.end says when it was pruned"
            self.pruned += 1
        elif one.end is not None or not one.over:
            return "removed: it is not there, and no recording.pruned says why"
        return None

    @property
    def told(self) -> str:
        """What is in order, in words."""
        older = f", {self.older} of sessions before this log" if self.older else ""
        return f"{self.good} recordings are as they were written, {self.pruned} were pruned{older}"
