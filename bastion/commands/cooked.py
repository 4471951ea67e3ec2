"""Shells and programs that do not say when they read a line: dash, busybox ash, cat, read, getpass.

The kernel or the program echoes what is typed. A line is one where its echo is found once Enter was pressed; what is
never echoed is `[unechoed input]`.
"""

from bastion.commands.editor import LineEditor
from bastion.commands.keys import END_OF_FILE, ENTER, INTERRUPT, SUSPEND, TypedLine
from bastion.commands.prompts import Prompts, continues, looks_like_prompt
from bastion.commands.reading import ENDING, REACH, Place, Reader
from bastion.commands.records import Records
from bastion.commands.screen import Screen
from bastion.commands.verifying import scrolled_sideways, verified

MAX_LINES = 400  # typed lines that wait for their echo
LOOKED_AT = 8  # of these, how many may be the one that is echoed now
TRIES = 1024  # how often an echo is looked for after a key
PATIENCE = 30  # line feeds after which a line that was not echoed will not be


class CookedLines:
    def __init__(self, screen: Screen, reader: Reader, prompts: Prompts, records: Records, editor: LineEditor) -> None:
        self._screen = screen
        self._reader = reader
        self._prompts = prompts
        self._records = records
        self._editor = editor
        self._lines: list[TypedLine] = []
        self._tries = 0

    @property
    def busy(self) -> bool:
        """Something was entered whose echo was not found yet."""
        return any(line.entered for line in self._lines[:1])

    def clear(self) -> None:
        self._lines.clear()

    def hand_over(self) -> list[TypedLine]:
        """A line editor begins: what was not echoed until now is what it reads first."""
        lines, self._lines = self._lines, []
        return lines

    def key(self, key: bytes, at: float, *, first: bool) -> None:
        """`first`: nothing else came with it before it, so that the screen shows where it was typed."""
        lines = self._lines
        self._tries = TRIES
        if key in INTERRUPT or key == SUSPEND:
            self._interrupted(key)
        elif key == END_OF_FILE:
            if not lines or lines[-1].entered or not lines[-1].typed:
                lines.clear()
                self._editor.clear()
        else:
            if first and lines and not lines[-1].entered and self._may_be_read(lines[-1]):
                self._begin_anew(lines[-1])
            if not lines or lines[-1].entered:
                self._begin(at, first=first)
            line = lines[-1]
            line.at = at
            if key in ENTER:
                line.entered = True
                self._editor.ahead(line)
            else:
                line.key(key)
            del lines[:-MAX_LINES]

    def _begin(self, at: float, *, first: bool) -> None:
        before, column = self._screen.before_cursor()
        row = self._screen.row_number
        moved = first and self._lines and (row, column) != (self._lines[-1].row, self._lines[-1].column)
        if moved and (self._prompts.is_prompt(before) or self._prompts.ends(before)):
            self._unechoed(self._lines, tentative=False)
            self._lines.clear()
            self._editor.clear()
        begun = self._editor.take_unfinished()
        if begun is not None:
            begun.row = None
            self._lines.append(begun)
            return
        line = TypedLine(at)
        line.echoed_from = row
        if first or not self._lines:
            line.row, line.column, line.prompt = row, column, before
            self._reader.expect_right_prompt()
        self._lines.append(line)

    def _may_be_read(self, line: TypedLine) -> bool:
        """A program may have taken the keys: no echo where they were typed, and by now a prompt has come."""
        row = self._screen.row(line.row) if line.row is not None else None
        before = self._screen.before_cursor()[0]
        if row is None or before == line.prompt or row.text(line.column).startswith(line.text[:1]):
            return False
        return self._prompts.is_prompt(before)

    def _begin_anew(self, line: TypedLine) -> None:
        before, column = self._screen.before_cursor()
        line.row, line.column, line.prompt = self._screen.row_number, column, before
        line.divide()

    def _interrupted(self, key: bytes) -> None:
        lines = self._lines
        if key in INTERRUPT:
            prompt = lines[-1].prompt if lines and not lines[-1].entered else self._screen.before_cursor()[0]
            if continues(prompt):
                self._records.abandon(prompt, self._screen.row_number)
        lines[:] = [line for line in lines if line.entered]
        self._editor.clear()
        self._records.settle()

    def line_fed(self) -> None:
        """The cursor is about to leave its row."""
        for line in self._lines[:LOOKED_AT]:
            self._tries -= 1
            if self._tries < 0 or not line.entered or self._resolve(line):
                break

    def _resolve(self, line: TypedLine) -> bool:
        """Whether the row that ends now told what became of the line."""
        line.feeds += 1
        typed = line.known_text
        if typed is not None and not typed.strip():
            self._drop_up_to(line)
            return True
        row = self._screen.row_number
        begin = self._place(line, row)
        prompt = line.prompt
        text: str | None = None
        exact = blank = False
        if begin is not None:
            if self._reader.goes_on(row) and self._screen.text(row + 1).strip():
                return True  # the cursor moves inside a line of several rows
            text = self._reader.without_right_prompt(self._reader.text(begin, row), begin).rstrip()
            blank = not text
            if typed is not None:
                shown = text
                text, exact = verified(shown, typed)
                if not exact and line.earlier is not None:
                    typed = line.earlier + typed
                    text, exact = verified(shown, typed)
                text = typed if exact else None
            elif text:
                text, exact = verified(text, line.edited_text)
        if text is None and typed is not None:
            found = self._find_echo(line, typed.strip(), row)
            if found is not None:
                (prompt, first_row), text, exact = found, typed, True
                begin = (first_row, 0)
            elif scrolled_sideways(self._screen.text(row), typed):
                text, exact = typed, True
        if text is None or not text.strip():
            if line.feeds > PATIENCE or (blank and len(self._lines) == 1 and line.feeds > 2):
                self._unechoed([line], tentative=True)
                self._drop_up_to(line)
                return True
            return False
        self._drop_up_to(line)
        self._found(line, text.strip("\n"), prompt, (begin or (row, 0))[0], row, exact=exact)
        return True

    def _found(self, line: TypedLine, text: str, prompt: str, first_row: int, row: int, *, exact: bool) -> None:
        shell = self._prompts.ends(prompt) or continues(prompt) or looks_like_prompt(prompt)
        if not prompt.strip() or not shell:
            if self._prompts.beginning(prompt):
                prompt = ""  # the command before it, whose echo was still to come
            self._records.input(text, line.known_text, at=line.at, prompt=prompt, row=row)
            return
        self._records.command(
            text, exact=exact, at=line.at, prompt=prompt, rows=(first_row, row), ahead=False, unplaced=False
        )
        if looks_like_prompt(prompt):
            self._prompts.learn(prompt)

    def _place(self, line: TypedLine, row: int) -> Place | None:
        """Where the line begins: where it was typed, or below, where the prompt was shown anew."""
        if line.row is None or row < line.row:
            return None
        found = self._screen.row(line.row)
        if found is None:
            return None
        prompt, ending = line.prompt, line.prompt[-ENDING:]
        base = found.text(0, line.column).ljust(line.column)
        same = base == prompt or (bool(ending.strip()) and base.endswith(ending))
        if same and not any(
            self._has_prompt(below, prompt) for below in range(max(line.row, row - REACH) + 1, row + 1)
        ):
            return line.row, line.column
        for below in range(row, max(line.row, row - REACH), -1):
            if self._has_prompt(below, prompt):
                return below, line.column
        return None

    def _has_prompt(self, row: int, prompt: str) -> bool:
        return bool(prompt.strip()) and self._screen.text(row).startswith(prompt) and self._reader.begins_line(row)

    def _find_echo(self, line: TypedLine, typed: str, row: int) -> tuple[str, int] | None:
        """What stands before the typed text, and its row, where that was shown since; None where it was not."""
        first = row
        while not self._reader.begins_line(first):
            first -= 1
        shown = self._reader.text((first, 0), row)
        if typed in shown:
            prompt = shown[: shown.index(typed)]
            if len(typed) > 1 or self._prompts.is_prompt(prompt) or continues(prompt):
                return prompt, first
        for above in range(max(line.echoed_from, row - REACH), first):
            text = self._screen.text(above)
            if len(typed) > 1 and typed in text:
                return text[: text.index(typed)], above
        return None

    def _drop_up_to(self, line: TypedLine) -> None:
        """The line is done, and those before it were never echoed."""
        index = self._lines.index(line)
        self._unechoed(self._lines[:index], tentative=True)
        for done in self._lines[: index + 1]:
            self._editor.forget(done)
        del self._lines[: index + 1]

    def _unechoed(self, lines: list[TypedLine], *, tentative: bool) -> None:
        for line in lines:
            if line.typed:
                self._records.unechoed(line.at, line.prompt, tentative=tentative)
