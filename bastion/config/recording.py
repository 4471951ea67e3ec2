"""The section `recording`: what was seen."""

from pathlib import Path
from typing import Literal

import pyrage
from pydantic import Field, field_validator

from bastion.config.section import Section, unique


class Recording(Section):
    """What was seen, as asciicast files."""

    folder: Path = Path("recordings")
    mode: Literal["strict", "best_effort"] = "strict"
    max_bytes: int = Field(64 << 20, ge=0)  # a stream
    min_free_bytes: int = Field(256 << 20, ge=0)  # below, no session starts
    recipients: tuple[str, ...] = ()  # age1...: to whom recordings are encrypted

    @field_validator("recipients")
    @classmethod
    def _public_keys(cls, recipients: tuple[str, ...]) -> tuple[str, ...]:
        for one in recipients:
            try:
                pyrage.x25519.Recipient.from_str(one)
            except pyrage.RecipientError:
                made = "as bastion keys recordings makes it"
                raise ValueError(f"a public key age1... is right, {made}; one of these is {one!r}") from None
        return unique(recipients)
