"""The chain: each entry has a number and the hash of the one before; signed heads vouch for all of it so far.

docs/proof.md has the format, so that others can verify it.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from bastion.audit.events import Entry, Event, entry
from bastion.audit.signing import PublicKey, SigningKey

TORN = b"#\n"  # ends what a crash or a full disk left of a line, so that no reader takes it for an entry
SIGNATURE = b', "signature": "'  # what is in front of it in a head's line is signed


@dataclass(frozen=True, slots=True)
class Tip:
    """The end of a chain: the number of its last entry, and the SHA-256 of that entry's line without the newline."""

    seq: int
    hash: str


START = Tip(0, "0" * 64)


def digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def parse(line: bytes) -> dict[str, object] | None:
    """The fields of a line that is an entry of a chain, else None."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    linked = isinstance(fields, dict) and type(fields.get("seq")) is int and isinstance(fields.get("prev"), str)
    return fields if linked else None


def signed(line: bytes, key: PublicKey) -> bool:
    """Is it the line of a head that `key` has signed?"""
    covered, _, rest = line.rpartition(SIGNATURE)
    try:
        return key.signed(covered, base64.b64decode(rest.removesuffix(b'"}'), validate=True))
    except ValueError:
        return False


class Chain:
    """Where a log goes on: gives entries their place in it, and signs heads. Not for several threads at once."""

    def __init__(self, bastion_id: str, key: SigningKey, head_events: int) -> None:
        self.tip = START
        self.unsigned = 0  # entries since the last head
        self._bastion_id = bastion_id
        self._key = key
        self._head_events = head_events

    def head(self) -> Entry:
        """To be linked; its signature is made then."""
        return self.note(Event.AUDIT_HEAD, key=self._key.public.fingerprint)

    def note(self, event: Event, **fields: object) -> Entry:
        """An event of the log about itself."""
        return entry(event, self._bastion_id, fields)

    def extend(self, entries: Sequence[Entry], torn: bytes) -> tuple[list[Entry], list[int]]:
        """`entries` as they follow the tip, with the heads that are due; beside each, how many of `entries` it ends.

        `torn` is what was left of a line in front of them. The tip stays where it is until advance().
        """
        tip, unsigned = self.tip, self.unsigned
        made: list[Entry] = []
        ends: list[int] = []
        for count, one in enumerate(entries, 1):
            due = [one]
            if one.fields["event"] != Event.AUDIT_HEAD and (
                one.fields["event"] == Event.SESSION_END or unsigned + 1 >= self._head_events
            ):
                due.append(self.head())
            for each in due:
                made.append(self._link(each, tip, torn))
                ends.append(count)
                tip, torn = Tip(tip.seq + 1, digest(made[-1].line.encode())), b""
            unsigned = 0 if due[-1].fields["event"] == Event.AUDIT_HEAD else unsigned + 1
        return made, ends

    def advance(self, entries: Sequence[Entry]) -> None:
        """`entries`, made by extend(), are in the log."""
        for one in entries:
            self.unsigned = 0 if one.fields["event"] == Event.AUDIT_HEAD else self.unsigned + 1
        if entries:
            last = entries[-1]
            self.tip = Tip(self.tip.seq + len(entries), digest(last.line.encode()))

    def _link(self, one: Entry, tip: Tip, torn: bytes) -> Entry:
        added = {"seq": tip.seq + 1, "prev": tip.hash} | ({"torn": digest(torn)} if torn else {})
        line = one.line[:-1] + "".join(f', "{name}": {orjson.dumps(value).decode()}' for name, value in added.items())
        if one.fields["event"] == Event.AUDIT_HEAD:
            signature = base64.b64encode(self._key.sign(line.encode())).decode()
            return Entry({**one.fields, **added, "signature": signature}, f'{line}{SIGNATURE.decode()}{signature}"}}')
        return Entry({**one.fields, **added}, line + "}")
