"""What a terminal shows: the text of its rows and its cursor, without colours.

Rows have absolute numbers, which scrolling and clearing leave as they are, so that a place on the screen can be
remembered. What was cleared away stays above the screen, as what was scrolled away does, for SCROLLBACK rows.

Bounded, whatever the terminal says that its size is, and whatever a program prints.
"""

from dataclasses import dataclass
from functools import lru_cache

from wcwidth import wcwidth

MAX_COLUMNS = 1000
MAX_ROWS = 300
SCROLLBACK = 128  # rows above the screen that are kept at least
MAX_MARKS = 8  # code points of a cell: a character, and what combines with it


@lru_cache(4096)
def width(character: str) -> int:
    """Columns that a character takes: 0, 1 or 2."""
    return max(0, wcwidth(character))


class Row:
    """One row. The right half of a wide character is an empty cell."""

    __slots__ = ("cells", "cut", "wrapped")

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.wrapped = False  # the text went on in the next row by itself
        self.cut = False  # its last column is empty, since a wide character did not fit

    def text(self, start: int = 0, end: int | None = None) -> str:
        return "".join(self.cells[start:end])

    def pad(self, column: int) -> None:
        if len(self.cells) < column:
            self.cells.extend(" " * (column - len(self.cells)))

    def erase(self) -> None:
        self.cells.clear()
        self.wrapped = self.cut = False


@dataclass(frozen=True, slots=True)
class _Saved:
    """The main screen, while the alternate one is shown."""

    rows: list[Row | None]
    first: int
    home: int
    x: int
    y: int


class Screen:
    """The cursor is at column `x` of row `y`, from 0; `row_number` is the absolute number of its row."""

    def __init__(self, columns: int, rows: int) -> None:
        self._rows: list[Row | None] = []  # grows as they are written to; None: nothing was
        self.first = 0  # absolute number of the first row that is kept
        self.home = 0  # absolute number of the screen's top row
        self.x = self.y = 0
        self.pending_wrap = False  # the cursor stands behind the last column
        self.alternate = False
        self.insert = False  # IRM
        self.autowrap = True  # DECAWM
        self._main: _Saved | None = None
        self._saved_cursor = (0, 0)
        self.columns, self.rows = _clamped(columns, rows)
        self._top, self._bottom = 0, self.rows - 1  # DECSTBM

    @property
    def row_number(self) -> int:
        return self.home + self.y

    def row(self, number: int) -> Row | None:
        """The row of that absolute number, None where nothing was ever written or it is no longer kept."""
        index = number - self.first
        return self._rows[index] if 0 <= index < len(self._rows) else None

    def text(self, number: int) -> str:
        row = self.row(number)
        return row.text() if row else ""

    def before_cursor(self) -> tuple[str, int]:
        """The text left of the cursor, and how many columns that is."""
        column = self.x + self.pending_wrap
        row = self.row(self.row_number)
        cells = row.cells[:column] if row else []
        return "".join(cells) + " " * (column - len(cells)), column

    def after_cursor(self) -> str:
        row = self.row(self.row_number)
        return row.text(self.x + self.pending_wrap) if row else ""

    def resize(self, columns: int, rows: int) -> None:
        """As xterm does it: nothing is wrapped anew; what does not fit is cut off."""
        columns, rows = _clamped(columns, rows)
        if self.y >= rows:
            self.home += self.y - rows + 1
            self.y = rows - 1
        self.columns, self.rows = columns, rows
        self._top, self._bottom = 0, rows - 1
        self.x = min(self.x, columns - 1)
        self.pending_wrap = False
        for row in self._rows[max(0, self.home - self.first) :]:
            if row is not None:
                del row.cells[columns:]

    def skip(self) -> None:
        """Output is left out here: what follows begins at the start of a row, at the bottom."""
        self.carriage_return()
        self.y = self._bottom

    def put(self, text: str) -> None:
        """Text without control characters."""
        if not text.isascii():
            for character in text:
                self._put_one(character)
            return
        at = 0
        while at < len(text):
            if self.pending_wrap:
                self._wrap()
            row, x = self._line(), self.x
            part = text[at : at + self.columns - x]
            row.pad(x)
            row.cells[x : x if self.insert else x + len(part)] = part
            if self.insert:
                del row.cells[self.columns :]
            at += len(part)
            self._advance(len(part))

    def _put_one(self, character: str) -> None:
        columns = width(character)
        if columns == 0:
            self._combine(character)
            return
        if self.pending_wrap:
            self._wrap()
        elif columns == 2 and self.x + 2 > self.columns:
            row = self._line()
            del row.cells[self.x :]
            row.cut = self.autowrap
            self._wrap()
        row, x = self._line(), self.x
        row.pad(x)
        row.cells[x : x if self.insert else x + columns] = [character] if columns == 1 else [character, ""]
        if self.insert:
            del row.cells[self.columns :]
        self._advance(columns)

    def _combine(self, mark: str) -> None:
        cells = self._line().cells
        x = self.x - (not self.pending_wrap)
        while 0 < x < len(cells) and cells[x] == "":
            x -= 1
        if 0 <= x < len(cells) and len(cells[x]) < MAX_MARKS:
            cells[x] += mark

    def _advance(self, columns: int) -> None:
        self.x += columns
        if self.x >= self.columns:
            self.x = self.columns - 1
            self.pending_wrap = True

    def _wrap(self) -> None:
        self.pending_wrap = False
        if self.autowrap:
            self._line().wrapped = True
            self.x = 0
            self.index()

    def move_to(self, x: int | None = None, y: int | None = None) -> None:
        """To a column and a row of the screen, from 0; kept within it."""
        if x is not None:
            self.x = max(0, min(self.columns - 1, x))
        if y is not None:
            self.y = max(0, min(self.rows - 1, y))
        self.pending_wrap = False

    def carriage_return(self) -> None:
        self.x = 0
        self.pending_wrap = False

    def index(self) -> None:
        """Down by a row; at the bottom the text moves up (IND)."""
        self.pending_wrap = False
        if self.y == self._bottom:
            self.scroll_up()
        elif self.y < self.rows - 1:
            self.y += 1

    def reverse_index(self) -> None:
        """Up by a row; at the top the text moves down (RI)."""
        self.pending_wrap = False
        if self.y == self._top:
            self.scroll_down()
        elif self.y > 0:
            self.y -= 1

    def up(self, count: int) -> None:
        self.move_to(y=max(self._top if self.y >= self._top else 0, self.y - count))

    def down(self, count: int) -> None:
        self.move_to(y=min(self._bottom if self.y <= self._bottom else self.rows - 1, self.y + count))

    def scroll_up(self, count: int = 1) -> None:
        if self._top == 0 and self._bottom == self.rows - 1 and not self.alternate:
            self.home += min(count, self.rows)
            self._forget()
        else:
            self._remove_rows(self._top, self._bottom, count)

    def scroll_down(self, count: int = 1) -> None:
        self._add_rows(self._top, self._bottom, count)

    def insert_rows(self, count: int) -> None:
        """IL; the cursor goes to the first column."""
        self._add_rows(self.y, max(self._bottom, self.y), count)
        self.carriage_return()

    def delete_rows(self, count: int) -> None:
        """DL; the cursor goes to the first column."""
        self._remove_rows(self.y, max(self._bottom, self.y), count)
        self.carriage_return()

    def set_region(self, top: int, bottom: int) -> None:
        """What scrolls, from 0, both included (DECSTBM)."""
        bottom = min(self.rows - 1, bottom)
        if top < bottom:
            self._top, self._bottom = top, bottom
            self.move_to(0, 0)

    def save_cursor(self) -> None:
        self._saved_cursor = (self.x, self.y)

    def restore_cursor(self) -> None:
        self.move_to(*self._saved_cursor)

    def erase_line(self, what: int) -> None:
        """EL: 0 from the cursor on, 1 up to it, 2 all."""
        row = self._line()
        if what == 0:
            del row.cells[self.x :]
            row.wrapped = row.cut = False
        elif what == 1:
            self.erase_cells(0, self.x + 1)
        else:
            row.erase()

    def erase_display(self, what: int) -> None:
        """ED: 0 from the cursor on, 1 up to it, 2 all."""
        index = self.home - self.first
        if what == 2 or (what == 0 and self.x == self.y == 0 and any(row and row.cells for row in self._rows[index:])):
            self.clear()
        elif what == 0:
            self.erase_line(0)
            del self._rows[index + self.y + 1 :]
        elif what == 1:
            self._rows[index : index + self.y] = [None] * self.y
            self.erase_cells(0, self.x + 1)

    def clear(self) -> None:
        """An empty screen, below all that was there."""
        if self.alternate:
            del self._rows[self.home - self.first :]
        else:
            self.home = max(self.home, self.first + len(self._rows))
            self._forget()

    def erase_cells(self, start: int, end: int) -> None:
        cells = self._line().cells
        end = min(len(cells), end)
        if start < end:
            cells[start:end] = " " * (end - start)

    def insert_cells(self, count: int) -> None:
        cells = self._line().cells
        if len(cells) > self.x:
            cells[self.x : self.x] = " " * min(count, self.columns)
            del cells[self.columns :]

    def delete_cells(self, count: int) -> None:
        del self._line().cells[self.x : self.x + count]
        self.pending_wrap = False

    def show_alternate(self, alternate: bool) -> None:
        """To the alternate screen, which is empty then, or back to the main one, which is as it was left."""
        if alternate == self.alternate:
            return
        if alternate:
            self._main = _Saved(self._rows, self.first, self.home, self.x, self.y)
            self._rows, self.first, self.home = [], 0, 0
        elif self._main is not None:
            main, self._main = self._main, None
            self._rows, self.first, self.home = main.rows, main.first, main.home
            self.move_to(main.x, main.y)
        self.alternate = alternate
        self._top, self._bottom = 0, self.rows - 1

    def reset(self) -> None:
        """RIS."""
        self.show_alternate(False)
        self.clear()
        self.move_to(0, 0)
        self.insert, self.autowrap = False, True
        self._top, self._bottom = 0, self.rows - 1

    def _line(self, y: int | None = None) -> Row:
        """The cursor's row, or that of the screen's row `y`."""
        index = self.home - self.first + (self.y if y is None else y)
        if index >= len(self._rows):
            self._rows.extend([None] * (index + 1 - len(self._rows)))
        row = self._rows[index]
        if row is None:
            row = self._rows[index] = Row()
        return row

    def _remove_rows(self, top: int, bottom: int, count: int) -> None:
        """At the top of a part of the screen rows go, at its bottom empty ones come in."""
        self._line(self.rows - 1)
        index, count = self.home - self.first, min(count, bottom + 1 - top)
        del self._rows[index + top : index + top + count]
        self._rows[index + bottom + 1 - count : index + bottom + 1 - count] = [None] * count

    def _add_rows(self, top: int, bottom: int, count: int) -> None:
        """At the top of a part of the screen empty rows come in, at its bottom as many go."""
        self._line(self.rows - 1)
        index, count = self.home - self.first, min(count, bottom + 1 - top)
        del self._rows[index + bottom + 1 - count : index + bottom + 1]
        self._rows[index + top : index + top] = [None] * count

    def _forget(self) -> None:
        above = self.home - self.first
        if above > 2 * SCROLLBACK:
            del self._rows[: above - SCROLLBACK]
            self.first = self.home - SCROLLBACK


def _clamped(columns: int, rows: int) -> tuple[int, int]:
    return max(2, min(columns, MAX_COLUMNS)), max(2, min(rows, MAX_ROWS))
