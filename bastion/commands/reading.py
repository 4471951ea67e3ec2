"""Reading a line off the screen: where it begins, and its text, over as many rows as it takes."""

import re
from collections.abc import Callable, Iterable, Iterator

from bastion.commands.prompts import Prompts
from bastion.commands.screen import Row, Screen

REACH = 40  # rows above the place where a line was begun in which it may have been drawn anew
LONGEST_LINE = 200  # rows that a line that was typed ahead takes at most
ENDING = 6  # characters at the end of a prompt by which it is known again, where its beginning has changed

Place = tuple[int, int]  # absolute number of a row, column


class Reader:
    def __init__(self, screen: Screen, prompts: Prompts) -> None:
        self._screen = screen
        self._prompts = prompts
        self._right_prompt = ""  # what stood right of the cursor when the line was begun
        self._right_end = 0  # the column behind it

    def goes_on(self, row: int) -> bool:
        """The text of this row continues in the next one: it was wrapped, or is full."""
        found = self._screen.row(row)
        if found is None:
            return False
        full = len(found.cells) >= self._screen.columns and found.cells[-2:] != [" ", " "]
        return found.wrapped or (full and not self._has_right_prompt(found))

    def prompt_of(self, line: str) -> int:
        """How many characters at its beginning are a known prompt."""
        return self._prompts.match(line) or 0

    def expect_right_prompt(self) -> None:
        """A line is begun at the cursor: what stands right of it is a prompt, and ends there as long as it is shown."""
        self._right_prompt = self._screen.after_cursor().strip()
        row = self._screen.row(self._screen.row_number)
        self._right_end = _width(row) if row and self._right_prompt else 0

    def _has_right_prompt(self, row: Row) -> bool:
        return bool(self._right_prompt) and without_right_prompt(row.text(), self._right_prompt) != row.text().rstrip()

    def column_of(self, row: int, characters: int) -> int:
        """The column in which the character after so many of the row's begins."""
        found = self._screen.row(row)
        cells = found.cells if found else []
        column = seen = 0
        while column < len(cells) and seen < characters:
            seen += len(cells[column])
            column += 1
        while column < len(cells) and cells[column] == "":
            column += 1
        return column + max(0, characters - seen)

    def text(self, begin: Place, last_row: int, indent: int = 0, *, whole: bool = False) -> str:
        """From a place to the end of a row; rows that were not wrapped are lines of their own.

        `whole`: the last row is wrapped, too, and is given with the blanks at its end.
        `indent` columns are left out at the start of a line where they are blank: fish aligns the lines of a command.
        """
        row, column = begin
        parts: list[str] = []
        new_line = False
        while row <= last_row:
            found = self._screen.row(row)
            if found is not None:
                if new_line and indent and len(found.cells) > indent and not found.text(0, indent).strip():
                    column = indent
                text = found.text(column)
                new_line = not ((row < last_row or whole) and self.goes_on(row))
                if new_line:
                    parts.append(text.rstrip() + ("\n" if row < last_row else ""))
                else:
                    parts.append(text if found.cut else text + " " * max(0, self._screen.columns - len(found.cells)))
            row, column = row + 1, 0
        return "".join(parts)

    def last_row_of(self, row: int) -> int:
        """The last row of the line that the row belongs to."""
        while self.goes_on(row) and self._screen.text(row + 1).strip():
            row += 1
        return row

    def begins_line(self, row: int) -> bool:
        return not self.goes_on(row - 1)

    def find_prompt(self, prompt: str, anchor: Place, last_row: int) -> Place | None:
        """The place behind the lowest row that begins with the prompt, or with what may have become of it.

        The line was begun at `anchor`; since then the screen may have been cleared, or the line been drawn anew.
        """
        first = anchor[0]
        ending = prompt[-ENDING:]
        same = _digits_aside(prompt)  # a clock in it, or a number of jobs
        tests: list[Callable[[str], bool]] = [lambda text: _digits_aside(text[: len(prompt)]) == same]
        if ending.strip():
            tests.append(lambda text: text[len(prompt) - len(ending) : len(prompt)] == ending)
        for rows in (range(last_row, first - 1, -1), range(first - 1, max(self._screen.first, first - REACH), -1)):
            for test in tests:
                for row in rows:
                    if test(self._screen.text(row).ljust(len(prompt))) and (row == first or self.begins_line(row)):
                        return row, self.column_of(row, len(prompt))
            for row, length in self._prompt_rows(rows):
                return row, self.column_of(row, length)
        return None

    def _prompt_rows(self, rows: Iterable[int]) -> Iterator[tuple[int, int]]:
        for row in rows:
            length = self._prompts.match(self._screen.text(row))
            if length is not None and self.begins_line(row):
                yield row, length

    def find_line(self, first_row: int, last_row: int, typed: str, begin_prompt: str) -> tuple[Place, str] | None:
        """Where a line begins that was typed ahead, and its prompt.

        That is a known prompt, what stands before the text that was typed, or what stood there when the editor began.
        """
        typed = typed.rstrip()
        for row in range(last_row, max(first_row, last_row - LONGEST_LINE) - 1, -1):
            if row > first_row and not self.begins_line(row):
                continue
            end = row
            while end < last_row and self.goes_on(end):
                end += 1
            line = self.text((row, 0), end).rstrip()
            length = len(self._prompts.beginning(line, least=3))
            if not length and typed.strip() and line.endswith(typed):
                length = len(line) - len(typed)
                return (row, self.column_of(row, length)), line[:length]
            if not length and begin_prompt and line.startswith(begin_prompt):
                length = len(begin_prompt)
                length += len(self._prompts.beginning(line[length:]))
            if not length:
                length = self._prompts.match(line, continuation=True) or 0
            if length:
                return (row, self.column_of(row, length)), line[:length]
        return None

    def without_right_prompt(self, text: str, begin: Place) -> str:
        """`text` was read from `begin`; what was on the right before anything was typed is no part of it."""
        row, column = begin
        found = self._screen.row(row)
        if found is None or not self._right_prompt:
            return text
        shown = found.text(column).rstrip()
        rest = without_right_prompt(shown, self._right_prompt)
        if rest == shown and _width(found) == self._right_end:  # another one by now, as of zsh's vi mode
            rest = shown[: max(0, shown.rfind("  "))].rstrip() or shown
        if rest == shown:
            return text
        return rest if self.goes_on(row) else "\n".join([rest, *text.split("\n")[1:]])


def _width(row: Row) -> int:
    """The column behind the last character that is no blank."""
    return next((i + 1 for i in range(len(row.cells) - 1, -1, -1) if row.cells[i] != " "), 0)


def without_right_prompt(line: str, right_prompt: str) -> str:
    """A prompt on the right, where the line was not so long that the shell took it away."""
    line, core = line.rstrip(), right_prompt.strip()
    if not core or not _digits_aside(line).endswith(_digits_aside(core)):
        return line
    rest = line[: -len(core)]
    return rest.rstrip() if not rest or rest.endswith(" ") else line


def _digits_aside(text: str) -> str:
    """A clock in a prompt goes on while a line is typed."""
    return re.sub(r"\d", "0", text)
