"""The section `recording`: what was seen."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from bastion.config.section import Section


class Recording(Section):
    """What was seen, as asciicast files."""

    folder: Path = Path("recordings")
    mode: Literal["strict", "best_effort"] = "strict"
    max_bytes: int = Field(64 << 20, ge=0)  # a stream
