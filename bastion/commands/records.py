"""The commands that were found, in order: some may still be added to, changed or taken back."""

from bastion.commands.expansion import Expansion
from bastion.commands.prompts import answers_secret, asks_for_rest, asks_for_secret, continues, joins, match_prompt
from bastion.commands.reading import Reader, without_right_prompt
from bastion.model import Command, Confidence

UNECHOED = "[unechoed input]"
HOLD = 1.0  # seconds in which a prompt for the rest of a command, or its expanded history, is waited for
HOLD_TENTATIVE = 60.0  # seconds in which a line that was typed ahead is waited for to be run
MAX_HELD = 512  # lines that wait at most
MAX_CONTENT = 65_536  # characters of a command that goes on over many prompts


class Record:
    """A command that is not certain yet."""

    __slots__ = ("at", "confidence", "content", "degraded", "prompt", "row", "since", "tentative", "typed", "unplaced")

    def __init__(self, content: str, confidence: Confidence, at: float, prompt: str, row: int | None) -> None:
        self.content = content
        self.confidence = confidence
        self.at = at
        self.since = at  # when it was last added to
        self.prompt = prompt
        self.row = row  # absolute number of its last row, where the next may continue it
        self.degraded = False
        self.tentative = False  # shown before it was read: a program's input, or typed ahead for a shell
        self.typed: str | None = None  # of a tentative one, where keys alone say it
        self.unplaced = False  # its content begins with a prompt that is not known yet

    @property
    def is_command(self) -> bool:
        return self.confidence in (Confidence.EXACT, Confidence.LIKELY)

    def place(self, prompt: str, right_prompt: str) -> bool:
        """Take the prompt from the content, where it is there."""
        lines = self.content.split("\n")
        for index, line in enumerate(lines):
            length = match_prompt(prompt, line)
            if length is not None:
                self.prompt = line[:length]
                first = without_right_prompt(line[length:], right_prompt)
                self.content = "\n".join([first, *lines[index + 1 :]])
                return True
        return False


class Records:
    def __init__(self, reader: Reader) -> None:
        self._held: list[Record] = []
        self._last: Record | None = None  # also when it was taken already
        self._closed = True  # nothing continues what was before
        self.expansion = Expansion(reader)
        self.degraded = False  # of the next: commands before it may be missing
        self.rows_apart = False  # each row of a command is an entry of the shell's history on its own: busybox ash

    @property
    def last(self) -> Record | None:
        return self._last

    @property
    def waiting(self) -> bool:
        """There are some that are not taken yet."""
        return bool(self._held)

    def due(self, now: float) -> bool:
        """What stands on the screen now decides whether one is certain."""
        return any(record is self._last and now - record.since > HOLD for record in self._held[-1:])

    @property
    def has_tentative(self) -> bool:
        return any(record.tentative for record in self._held)

    def command(
        self, content: str, *, exact: bool, at: float, prompt: str, rows: tuple[int, int], ahead: bool, unplaced: bool
    ) -> None:
        """A shell ran this line, which stands on these rows.

        `ahead`: it was typed before there was a prompt; `unplaced`: `content` begins with a prompt that is not known.
        """
        if answers_secret(prompt):
            self.unechoed(at, prompt)
            return
        last = self._last
        previous = last.content if last else ""
        continued = last is not None and last.is_command and not self._closed and joins(prompt)
        if (
            continued
            and not self.rows_apart
            and last is not None
            and last.row is not None
            and last.row + 1 == rows[0]
            and last in self._held
        ):
            last.content = f"{last.content}\n{content}"[:MAX_CONTENT]
            last.row, last.since = rows[1], at
            if not exact:
                last.confidence = Confidence.LIKELY
        else:
            confidence = Confidence.EXACT if exact else Confidence.LIKELY
            record = Record(content, confidence, at, prompt, rows[1])
            record.unplaced = unplaced
            self._add(record, ahead=ahead)
        self._closed = False
        if not continues(prompt) and self._last is not None:
            self.expansion.expect(self._last, previous, rows[1] + 1)

    def expansion_shown(self) -> bool:
        """What the shell made of the last line stands on the screen. True if it was not run: that may be edited now."""
        if not self.expansion.resolve() or self._last not in self._held:
            return False
        self._held.remove(self._last)
        self._last = None
        return True

    def pane_command(self, content: str, *, at: float, prompt: str) -> None:
        """A command in a pane of a terminal multiplexer."""
        self._add(Record(content, Confidence.LIKELY, at, prompt, None))
        self._closed = True

    def input(self, content: str, typed: str | None, *, at: float, prompt: str, row: int) -> None:
        """A line that was shown where no prompt is known: a program's, or a shell's that will run it later."""
        if answers_secret(prompt):
            self.unechoed(at, prompt)
            return
        record = Record(content, Confidence.INPUT, at, prompt, row)
        record.tentative = True
        record.typed = typed
        self._add(record)
        self._closed = False

    def unechoed(self, at: float, prompt: str, *, tentative: bool = False) -> None:
        """Something was typed that was never shown; `tentative`: it may still be shown when a shell reads it."""
        record = Record(UNECHOED, Confidence.UNECHOED, at, prompt, None)
        record.tentative = tentative
        self._add(record)

    def tentative_before(self, at: float) -> bool:
        return any(record.tentative and record.at <= at for record in self._held)

    def take_tentative(self, shown: str) -> Record | None:
        """Which of the lines typed ahead the shell runs, that shows this. Those before it were a program's."""
        tentative = [record for record in self._held if record.tentative]
        fitting = [record for record in tentative if record.typed and shown.endswith(record.typed.rstrip())]
        unknown = [record for record in tentative if record.typed is None]
        taken = next(iter(fitting or unknown or tentative), None)
        if taken is not None:
            for record in tentative[: tentative.index(taken)]:
                record.tentative = False
            self._held.remove(taken)
        return taken

    def settle(self) -> None:
        """A clean prompt: what was typed before it was read by programs."""
        for record in self._held:
            record.tentative = False

    def prompt_shown(self, prompt: str, right_prompt: str) -> None:
        """A shell waits at this prompt, and nothing was typed: all that was typed before was read by programs."""
        self.settle()
        for record in self._held:
            if record.unplaced and prompt.strip():
                record.unplaced = not record.place(prompt, right_prompt)

    def hide_tentative(self, shown: str) -> None:
        """What was typed ahead was meant for a question without echo: `shown`, or what in it follows on the echo."""
        asked = asks_for_secret(shown)
        for record in self._held:
            follows = shown.startswith(record.content) and asks_for_secret(shown[len(record.content) :])
            if record.tentative and (follows or (asked and not record.prompt.strip())):
                record.content, record.confidence, record.tentative = UNECHOED, Confidence.UNECHOED, False

    def abandon(self, prompt: str, row: int) -> None:
        """A line was given up at `row`; at a continuation prompt all of the command is."""
        last = self._last
        if last is not None and joins(prompt) and last.row is not None and last.row + 1 >= row and not self._closed:
            if last in self._held and last.is_command:
                self._held.remove(last)
            self._last = None
        self._closed = True

    def take(self, now: float, prompt: str) -> list[Command]:
        """What is certain by now; `prompt` is what stands left of the cursor."""
        if self.expansion.pending and self.due(now):
            self.expansion_shown()
        count = 0
        for record in self._held:
            if not self._certain(record, now, prompt):
                break
            count += 1
        return self._release(max(count, len(self._held) - MAX_HELD))

    def finish(self, prompt: str) -> list[Command]:
        """`prompt` is what stands left of the cursor: the rest of a command that was never typed leaves it undone."""
        if asks_for_rest(prompt) and not self._closed and self._last in self._held and self._last.is_command:
            self._held.remove(self._last)
        return self._release(len(self._held))

    def _certain(self, record: Record, now: float, prompt: str) -> bool:
        if record.tentative or record.unplaced:
            return now - record.at > HOLD_TENTATIVE
        if record is not self._last or not record.is_command or self._closed:
            return True
        return now - record.since > HOLD and not joins(prompt)

    def _release(self, count: int) -> list[Command]:
        released, self._held = self._held[:count], self._held[count:]
        return [Command(r.content, r.confidence, r.at, r.prompt, r.degraded) for r in released]

    def _add(self, record: Record, *, ahead: bool = False) -> None:
        record.degraded, self.degraded = self.degraded, False
        index = len(self._held)
        if ahead:  # what else was typed ahead comes after it
            index = next((i for i, held in enumerate(self._held) if held.tentative), index)
        self._held.insert(index, record)
        self._last = record
