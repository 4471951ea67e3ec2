"""The configuration's section, with a signing key that is made once a run."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bastion.audit import signing
from bastion.config import Audit


@functools.cache
def signing_key() -> Path:
    folder = tempfile.mkdtemp(prefix="bt-")
    atexit.register(shutil.rmtree, folder)
    path = Path(folder, "audit_key")
    signing.generate(path)
    return path


def audit(file: Path | None, **options: Any) -> Audit:
    return Audit(file=file, signing_key=signing_key(), **options)


OWN = ("audit.verified", "audit.head")


def others(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what the log says about its own chain."""
    return [event for event in events if event["event"] not in OWN]
