"""The file that is the log: its entries follow each other also over crashes and rotation, and are durable."""

import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from itertools import chain as joined
from pathlib import Path

from bastion.audit.chain import START, Chain, Tip, digest
from bastion.audit.events import Event
from bastion.audit.files import Known, State, anchored, files, lines_behind, lines_of, numbered, state_file, sync_folder
from bastion.audit.ledger import Ledger, PassOn
from bastion.audit.signing import PublicKey
from bastion.audit.verify import Finding, Line, Report, What, verify
from bastion.errors import BastionError

FINDINGS_LIMIT = 50  # that an event names
_logger = logging.getLogger(__name__)


class Touched(BastionError):
    """The log is not as the bastion left it; strict, it does not go on."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        said = [str(finding) for finding in findings[:5]]
        more = [f"and {len(findings) - 5} more"] if len(findings) > 5 else []
        right = (
            "`bastion audit verify` says more; `bastion audit acknowledge --why ...` goes on, with the bastion stopped"
        )
        super().__init__("\n".join([*(f"the audit log was touched: {one}" for one in said), *more, right]))
        self.findings = findings


class LogFile(Ledger):
    """A file (0600 when it is made here), and beside it FILE.state, which remembers where it ends.

    When somebody moved the file away (logrotate), it is made again, and the chain goes on in it. One process at a time
    has it: the others find FILE.state locked.
    """

    def __init__(
        self, path: Path, chain: Chain, key: PublicKey, anchor: Path | None, strict: bool, pass_on: PassOn
    ) -> None:
        self.path = path
        self.name = f"audit.file {path}"
        super().__init__(chain, pass_on)
        self._key = key
        self._anchor = anchor
        self._strict = strict
        self._state = State(state_file(path))
        self._file: int | None = None
        self._size = 0
        self._opened_at = 0  # the number of the last entry then
        self._carried = False  # what is torn is in the file before this one
        self._touched: Touched | None = None

    # ---- where it goes on ----

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        tip = self._state.open() or START
        self._file = self._made()
        self._size = os.fstat(self._file).st_size
        known = {tip.seq: (tip.hash, str(self._state.path))} if tip != START else {}
        if self._anchor is not None:
            known |= anchored(self._anchor, self._key)
        report = verify(lines_of(self.path), self._key, known)
        if not report.entries and not any(finding.what is What.CHANGED for finding in report.findings):
            report = self._begun_anew(tip, known, report.torn)
        self._torn = os.pread(self._file, report.torn, self._size - report.torn)
        self._chain.tip = Tip(max(report.tip.seq, *known, 0), report.tip.hash)
        self._opened_at = self._chain.tip.seq
        self._chain.unsigned = self._chain.tip.seq - report.signed
        self._judge(report, begins=not report.entries)

    def behind(self, number: int) -> Iterator[bytes]:
        if self.findings:
            return iter(())  # nobody knows which of them the bastion has written
        return lines_behind(self.path, number, self._opened_at)

    def _begun_anew(self, tip: Tip, known: Known, torn: int) -> Report:
        """The file is new, or a crash cut its first line short: the one before it has to be somewhere."""
        report = Report(tip=tip, torn=torn)
        if tip != START and not self._was_rotated(tip):
            gone = "the file that ends with it is neither here nor beside"
            report.findings.append(Finding(What.REMOVED, tip.seq, tip.seq, str(self.path), gone))
        if max(known, default=0) > tip.seq:
            detail = f"missing; {known[max(known)][1]} has them"
            report.findings.append(Finding(What.CUT, tip.seq + 1, max(known), str(self.path), detail))
        return report

    def _was_rotated(self, tip: Tip) -> bool:
        return any(digest(line.raw) == tip.hash for path in files(self.path) for line in list(lines_of(path))[-1:])

    def _judge(self, report: Report, begins: bool) -> None:
        """Say what was found; Touched where it is strict and nobody has acknowledged it."""
        self.findings = report.findings
        if report.findings and self._strict:
            self._touched = Touched(report.findings)
            raise self._touched
        for finding in report.findings:
            _logger.error("the audit log was touched: %s", finding)
        said = [str(finding) for finding in report.findings[:FINDINGS_LIMIT]]
        self._notes = [self._chain.note(Event.AUDIT_VERIFIED, begins=begins, entries=report.entries, findings=said)]

    def _made(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a file that can be read again")
            if status.st_size == 0:
                sync_folder(self.path.parent)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    # ---- while it is open ----

    def _descriptor(self) -> int:
        if self._touched is not None:
            raise self._touched
        assert self._file is not None
        status = os.fstat(self._file)
        if status.st_size != self._size:
            self._resized(status.st_size)
        if not self._is_at_its_path(status):
            self._rotated(status)
        return self._file

    def _is_at_its_path(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(self.path.stat(), status)
        except FileNotFoundError:
            return False

    def _resized(self, size: int) -> None:
        """Somebody else wrote to it."""
        tip = self._chain.tip
        report = verify(self._lines(), self._key, {tip.seq: (tip.hash, str(self._state.path))})
        if not report.findings:
            detail = f"{size - self._size} bytes that the bastion did not write stand in front of it"
            report.findings.append(Finding(What.ADDED, tip.seq + 1, tip.seq + 1, str(self.path), detail))
        self._judge(report, begins=False)
        self._size, self._torn = size, os.pread(self._file or 0, report.torn, size - report.torn)

    def _rotated(self, status: os.stat_result) -> None:
        """Somebody moved it away: go on in another one, once this one is seen to be whole."""
        made = self._made()
        tip, size = self._chain.tip, os.fstat(made).st_size
        known = {tip.seq: (tip.hash, str(self._state.path))}
        report = verify(joined(self._lines(), lines_of(self.path)), self._key, known)
        os.close(self._file or 0)
        self._file, self._carried = made, bool(self._torn) and not size
        if status.st_nlink == 0:
            gone = "the file was deleted, not moved"
            report.findings.append(Finding(What.REMOVED, report.first, tip.seq, str(self.path), gone))
        elif size and not report.findings:
            detail = "there is a file that the bastion did not make"
            report.findings.append(Finding(What.ADDED, tip.seq + 1, tip.seq + 1, str(self.path), detail))
        self._size = size
        self._judge(report, begins=not size)

    def _lines(self) -> Iterator[Line]:
        assert self._file is not None
        with os.fdopen(os.dup(self._file), "rb") as stream:
            stream.seek(0)
            yield from numbered(str(self.path), stream)

    def _mark(self) -> bytes:
        return b"" if self._carried else super()._mark()

    def _tear(self, left: bytes) -> None:
        self._torn += b"\n" * (self._carried and bool(left)) + left
        self._carried = self._carried and not left and bool(self._torn)

    def _wrote(self, descriptor: int, written: int, sync: bool) -> None:
        if sync:
            try:
                os.fdatasync(descriptor)
            except OSError:
                os.ftruncate(descriptor, self._size)  # nobody was told that it is there
                raise
        self._size += written

    def _advanced(self) -> None:
        self._state.write(self._chain.tip)

    def _shut(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._state.close()
