"""Reads a chain as somebody who trusts nothing but the public key, and names what is not as it was written. Pure."""

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bastion.audit.chain import START, Tip, digest, parse, signed
from bastion.audit.events import Event
from bastion.audit.signing import PublicKey

WINDOW = 1000  # lines within which an entry is looked for that is not where it should be


class What(StrEnum):
    CHANGED = "changed"
    FORGED = "forged"  # changed, and hashed anew by somebody without the key
    REMOVED = "removed"
    ADDED = "added"
    REORDERED = "re-ordered"
    CUT = "cut short"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with the entries `first` to `last`, and where: a file and its line, or a row."""

    what: What
    first: int
    last: int
    place: str
    detail: str
    evidence: str = ""  # the hash of what was found

    @property
    def id(self) -> str:
        """The same for the same wrong, whoever finds it when: by it, it is acknowledged."""
        if self.what in (What.REMOVED, What.CUT, What.ROLLED_BACK):
            said = f"missing {self.first} {self.last}"
        else:
            said = f"{self.what} {self.last} {self.evidence}"
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        which = f"entry {self.first}" if self.first == self.last else f"entries {self.first} to {self.last}"
        return f"{self.place}: {which}: {self.what}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline, and where it stands; `whole` is false for a last one that has none."""

    place: str
    raw: bytes
    whole: bool = True


@dataclass(slots=True)
class Report:
    """What a chain holds, and what is wrong with it. Entries are counted from 1."""

    first: int = 0
    tip: Tip = START
    entries: int = 0
    heads: int = 0
    signed: int = 0  # the last head whose signature is good
    intact: int = 0  # the same, before the first finding
    torn: int = 0  # bytes behind the last entry: of a line that a crash cut short
    findings: list[Finding] = field(default_factory=list)
    acknowledged: list[tuple[Finding, str]] = field(default_factory=list)  # and why


@dataclass(frozen=True, slots=True)
class _Line:
    place: str
    raw: bytes
    seq: int | None  # None: no entry
    prev: str
    hash: str
    fields: Mapping[str, object]
    lost: bool = False  # it vouches for a torn line in front of it, which is not there

    @property
    def event(self) -> object:
        return self.fields.get("event")

    def is_before(self, other: "_Line") -> bool:
        return other.prev == self.hash and self.seq is not None and other.seq == self.seq + 1


def verify(lines: Iterable[Line], key: PublicKey | None, known: Mapping[int, tuple[str, str]] | None = None) -> Report:
    """Read `lines`, which begin with the oldest.

    `known` are entries that are remembered elsewhere: number -> hash, and where. Without `key` no signature is checked.
    """
    walk = _Walk(lines, key, known or {})
    walk.run()
    return walk.report


class _Walk:
    def __init__(self, lines: Iterable[Line], key: PublicKey | None, known: Mapping[int, tuple[str, str]]) -> None:
        self.report = Report()
        self._lines = self._entries(lines)
        self._ahead: deque[_Line] = deque()
        self._key = key
        self._known = known
        self._seq = START.seq + 1  # of the entry that has to come now
        self._prev: str | None = None  # its hash of the one before; None: not known
        self._recent: dict[int, _Line] = {}
        self._bad_head = 0
        self._strays: list[tuple[Finding, set[int]]] = []  # lines where they do not belong, and their numbers
        self._acknowledged: dict[str, tuple[int, str]] = {}

    def run(self) -> None:
        self._begin()
        while (line := self._peek(0)) is not None:
            if self._follows(line):
                self._accept()
            else:
                self._mend(line)
        self._end()

    # ---- lines ----

    def _entries(self, lines: Iterable[Line]) -> Iterator[_Line]:
        """What is left of a torn line is no entry, if the next one vouches for it."""
        torn: list[Line] = []
        for line in lines:
            fields = parse(line.raw) if line.whole else None
            if fields is None and (line.raw.endswith(b"#") or not line.whole):
                torn.append(line)
                continue
            left = fields.get("torn") if fields is not None else None
            if not torn or left != digest(_left(torn)):
                yield from map(_unreadable, torn)
            if fields is None:
                yield _unreadable(line)
            else:
                seq, prev = fields["seq"], fields["prev"]
                assert isinstance(seq, int)
                lost = left is not None and not torn
                yield _Line(line.place, line.raw, seq, str(prev), digest(line.raw), fields, lost)
            torn = []
        self.report.torn = sum(len(line.raw) + line.whole for line in torn)

    def _peek(self, distance: int) -> _Line | None:
        while len(self._ahead) <= distance:
            line = next(self._lines, None)
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[distance]

    def _follows(self, line: _Line) -> bool:
        return line.seq == self._seq and self._prev in (None, line.prev)

    def _begin(self) -> None:
        """The number of the first entry, which may itself be what was changed."""
        first = [line for n in range(9) if (line := self._peek(n)) is not None]
        begins = Counter(line.seq - n for n, line in enumerate(first) if line.seq is not None and line.seq > n)
        if begins:
            self._seq = min(begins, key=lambda seq: (begins[seq] == 1, seq))
        for n, line in enumerate(first):
            if line.fields.get("begins") and line.seq is not None:  # the first of a file: what is in front was added
                if not any(one.seq is not None and line.seq - n <= one.seq < line.seq for one in first[:n]):
                    self._seq = line.seq
                break
        self.report.first = self._seq
        if self._seq == START.seq + 1:
            self._prev = START.hash
        elif first[0].seq != self._seq or not self._is_intact(*first[:2]):
            self._found(
                What.CHANGED, 1, self._seq, first[0].place, "the beginning is missing, or this line was changed"
            )
        elif not first[0].fields.get("begins"):
            self._found(What.REMOVED, 1, self._seq - 1, first[0].place, "the beginning is missing")

    # ---- what is as it was written ----

    def _accept(self) -> None:
        line = self._ahead.popleft()
        assert line.seq is not None
        if line.lost:
            self._found(What.REMOVED, line.seq, line.seq, line.place, "what a crash had left in front of it is gone")
        self._seq, self._prev = line.seq + 1, line.hash
        self._recent[line.seq] = line
        self._recent.pop(line.seq - WINDOW, None)
        self.report.entries += 1
        self.report.tip = Tip(line.seq, line.hash)
        if line.event == Event.AUDIT_HEAD:
            self._check_head(line)
        elif line.event == Event.AUDIT_ACKNOWLEDGED:
            self._acknowledge(line)
        expected, where = self._known.get(line.seq, (line.hash, ""))
        following = self._peek(0)  # may show it more exactly: that this line was changed, or that it is a rival of its
        if expected != line.hash and not (following and expected in (following.prev, following.hash)):
            self._forged(line, f"entry {line.seq} is not the one that {where} has")

    def _next_prev(self) -> str | None:
        following = self._peek(0)
        return None if following is None or following.seq is None else following.prev

    def _check_head(self, line: _Line) -> None:
        assert line.seq is not None
        self.report.heads += 1
        if self._key is None:
            return
        if signed(line.raw, self._key):
            self.report.signed = line.seq
            if not self.report.findings:
                self.report.intact = line.seq
        elif self._next_prev() in (None, line.hash):
            self._forged(line, f"the signature of {line.seq} is not that of the key")
        else:
            self._bad_head = line.seq  # the next entry shows that it was this line

    def _acknowledge(self, line: _Line) -> None:
        found, why = line.fields.get("findings"), str(line.fields.get("why"))
        assert line.seq is not None
        for one in found if isinstance(found, list) else []:
            self._acknowledged[str(one)] = line.seq, why

    def _is_good_head(self, line: _Line | None) -> bool:
        return line is not None and line.event == Event.AUDIT_HEAD and bool(self._key and signed(line.raw, self._key))

    def _is_intact(self, line: _Line, following: _Line | None = None) -> bool:
        """Does something vouch for the line itself, whatever is in front of it?"""
        return self._is_good_head(line) or (following is not None and line.is_before(following))

    # ---- what is not ----

    def _found(self, what: What, first: int, last: int, place: str, detail: str, evidence: str = "") -> Finding:
        finding = Finding(what, first, last, place, detail, evidence)
        self.report.findings.append(finding)
        return finding

    def _forged(self, line: _Line, detail: str) -> None:
        assert line.seq is not None
        first = min(self.report.signed + 1, line.seq)
        self._found(What.FORGED, first, line.seq, line.place, f"{detail}: one of these was changed", line.hash)

    def _mend(self, line: _Line) -> None:
        """`line` is not the one that has to come now: say why, and go on behind it."""
        if self._are_strays() or self._goes_on(line) or self._is_fork(line):
            return
        following, before = self._peek(1), self._recent.get(self._seq - 1)
        if line.seq == self._seq:  # its number is right, its hash of the one before is not
            intact = self._is_intact(line, following) or self._bad_head == line.seq - 1
            first = line.seq if before is None or self._is_good_head(before) else line.seq - 1
            last = first if intact else line.seq
            place, evidence = (line.place, line.hash) if before is None or first == last == line.seq else (
                before.place, before.hash)  # fmt: skip
            detail = "is not what the next entry says" if first == last else "one of the two is not what was written"
            self._found(What.CHANGED, first, last, place, detail, evidence)
            self._accept()
            if not intact:
                self._prev = None
        elif line.seq is None or line.prev == self._prev or (following is not None and following.seq == self._seq + 1):
            self._ahead.popleft()
            self._found(What.CHANGED, self._seq, self._seq, line.place, "is not what was written", line.hash)
            self._seq, self._prev = self._seq + 1, None
        elif line.seq > self._seq:
            self._found(What.REMOVED, self._seq, line.seq - 1, line.place, "missing in front of this line")
            self._seq, self._prev = line.seq, None
        else:
            count = 1
            while (after := self._peek(count)) is not None and self._ahead[count - 1].is_before(after):
                count += 1
            self._stray(count)

    def _are_strays(self) -> bool:
        """The entry that has to come now stands further on: what is in between does not belong here."""
        for distance in range(1, WINDOW):
            line = self._peek(distance)
            if line is None:
                return False
            if self._follows(line) and (self._prev is not None or self._is_intact(line, self._peek(distance + 1))):
                self._stray(distance)
                return True
        return False

    def _stray(self, count: int) -> None:
        lines = [self._ahead.popleft() for _ in range(count)]
        detail = f"{count} line{'s that do' if count > 1 else ' that does'} not belong in front of it"
        finding = self._found(What.ADDED, self._seq, self._seq, lines[0].place, detail, lines[0].hash)
        self._strays.append((finding, {line.seq for line in lines if line.seq is not None}))

    def _goes_on(self, line: _Line) -> bool:
        """Bound to the last entry that was there, numbered behind the last that was known: the bastion went on so."""
        if line.event != Event.AUDIT_VERIFIED or line.seq is None or line.seq <= self._seq:
            return False
        if self._prev not in (None, line.prev):
            return False
        self._found(What.REMOVED, self._seq, line.seq - 1, line.place, "missing in front of this line")
        self._accept()
        return True

    def _is_fork(self, line: _Line) -> bool:
        """It follows an entry further back: what came in between was put there, and linked as if it belonged."""
        rival = self._recent.get(line.seq) if line.seq is not None else None
        if rival is None or rival.prev != line.prev or rival.hash == line.hash:
            return False
        following = self._peek(1)
        if following is not None and not self._is_intact(line, following):
            return False
        assert line.seq is not None
        last = max(line.seq, self._seq - 1)
        self._found(What.ADDED, line.seq, last, rival.place, "linked as if it belonged here", rival.hash)
        self._accept()
        return True

    # ---- the end ----

    def _end(self) -> None:
        report = self.report
        beyond = [seq for seq in self._known if seq >= self._seq]
        if beyond:
            where = self._known[max(beyond)][1]
            last = self._recent.get(self._seq - 1)
            back = last is not None and last.event == Event.AUDIT_HEAD
            detail = f"missing at the end; {where} has them"
            place = last.place if last is not None else "the beginning"
            self._found(What.ROLLED_BACK if back else What.CUT, self._seq, max(beyond), place, detail)
        self._join_reordered()
        for finding in list(report.findings):
            seq, why = self._acknowledged.get(finding.id, (0, ""))
            if seq and (self._key is None or report.signed >= seq):
                report.findings.remove(finding)
                report.acknowledged.append((finding, why))

    def _join_reordered(self) -> None:
        """Lines that are missing in one place and too many in another were moved."""
        findings = self.report.findings
        gaps = [finding for finding in findings if finding.what is What.REMOVED]
        moved: set[int] = set()
        begun: list[Finding] = []
        for stray, numbers in self._strays:
            here = [gap for gap in gaps if any(gap.first <= seq <= gap.last for seq in numbers)]
            if here:
                moved |= numbers
                first = min(stray.first, *(gap.first for gap in here))
                place = stray.place if first == stray.first else here[0].place
                detail = f"entries from {min(numbers)} on stand in front of {stray.first}"
                findings[findings.index(stray)] = Finding(What.REORDERED, first, first, place, detail, stray.evidence)
            elif min(numbers, default=self.report.first) < self.report.first:  # the beginning stands further on
                findings.remove(stray)
                detail = f"entries from {self.report.first} on stand in front of it"
                begun.append(Finding(What.REORDERED, min(numbers), min(numbers), stray.place, detail))
                self.report.intact = 0
        for gap in gaps:
            if moved.issuperset(range(gap.first, gap.last + 1)):
                findings.remove(gap)
        findings[:0] = sorted(begun, key=lambda finding: finding.first)


def _left(torn: list[Line]) -> bytes:
    raw = b"\n".join(line.raw for line in torn)
    return raw[:-1] if torn[-1].whole else raw


def _unreadable(line: Line) -> _Line:
    return _Line(line.place, line.raw, None, "", digest(line.raw), {})
