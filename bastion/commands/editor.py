"""Shells and REPLs that say when they read a line: they switch bracketed paste on, and off at its end.

Readline, zsh and fish do. Between the two, the screen shows the line as it is edited; at the end, the line that is run.
"""

from bastion.commands.keys import ENTER, ENTER_AND_NEXT, INTERRUPT, PASTE_BEGINS, PASTE_ENDS, TypedLine
from bastion.commands.prompts import Prompts, looks_like_prompt
from bastion.commands.reading import Place, Reader
from bastion.commands.records import Records
from bastion.commands.screen import Screen
from bastion.commands.verifying import lines_verified, spelt_in, verified

MAX_AHEAD = 1024  # lines typed ahead that are remembered


class Edit:
    """One line being edited."""

    def __init__(self, begin: Place) -> None:
        self.begin = begin  # where the cursor was when the editor began
        self.begin_prompt = ""  # what stood left of it: zsh shows its prompt before
        self.anchor: Place | None = None  # where the line begins, known from the first key on
        self.prompt = ""
        self.keys = 0
        self.enters = 0
        self.interrupted = False  # ^C was the last key that could end it
        self.entered_at = self.interrupted_at = 0.0


class LineEditor:
    def __init__(self, screen: Screen, reader: Reader, prompts: Prompts, records: Records) -> None:
        self._screen = screen
        self._reader = reader
        self._prompts = prompts
        self._records = records
        self._edit: Edit | None = None
        self._typed: list[TypedLine] = []  # what was typed and not run yet; the first is the line that is edited
        self._pasting = False
        self._without_prompt = False  # the line before had none, as in bc
        self.text_given = False  # the line begins with what became of the one before

    @property
    def busy(self) -> bool:
        """Something was typed that is not run yet."""
        return bool(self._typed) or (self._edit is not None and self._edit.keys > 0)

    def begin(self, typed_ahead: list[TypedLine]) -> None:
        """The editor begins to read."""
        edit = self._edit
        if edit is not None and edit.interrupted and edit.anchor is not None:
            self._abandon(edit)
        for line in typed_ahead:
            if line not in self._typed:
                self._typed.append(line)
        if edit is None or edit.keys:
            self._edit = self._new_edit()

    def ahead(self, line: TypedLine) -> None:
        """A line was entered while no editor read."""
        self._typed.append(line)
        del self._typed[:-MAX_AHEAD]

    def take_unfinished(self) -> TypedLine | None:
        """The line that is being typed, to be typed on while no editor reads."""
        return self._typed.pop() if self._typed and not self._typed[-1].entered else None

    def forget(self, line: TypedLine) -> None:
        """It was seen to be read by something else."""
        if line in self._typed:
            self._typed.remove(line)

    def clear(self) -> None:
        """What was typed is of no interest any more."""
        self._typed.clear()

    def leave(self) -> None:
        """Another screen is shown."""
        self._edit = None
        self._typed.clear()
        self._pasting = False

    def key(self, key: bytes, at: float) -> None:
        edit = self._edit
        if edit is None:
            edit = self._edit = self._new_edit()
        if edit.anchor is None and not edit.enters:
            self._anchor(edit)
        edit.keys += 1
        if key == PASTE_BEGINS:
            self._pasting = True
        elif key == PASTE_ENDS:
            self._pasting = False
        line = self._typed[-1] if self._typed and not self._typed[-1].entered else None
        if line is None:
            line = TypedLine(at)
            self.ahead(line)
        if not self._pasting and (key in ENTER or key == ENTER_AND_NEXT):
            edit.enters += 1
            edit.interrupted = False
            edit.entered_at = line.at = at
            line.entered = True
            return
        if key in INTERRUPT:
            edit.interrupted = True
            edit.interrupted_at = at
        elif key[0] >= 0x20 or key in (b"\t", b"\x12"):
            edit.interrupted = False
        if self._pasting and key != PASTE_BEGINS:
            line.insert(b"\n" if key in ENTER else key)
        else:
            line.key(key)

    def _new_edit(self) -> Edit:
        before, column = self._screen.before_cursor()
        edit = Edit((self._screen.row_number, column))
        echoed = any(before.strip() in line.text for line in self._typed)
        if before.strip() and not echoed and (before.endswith(" ") or looks_like_prompt(before)):
            edit.begin_prompt = before
        return edit

    def _anchor(self, edit: Edit) -> None:
        """The first key: where the cursor is, the line begins, unless what was typed ahead stands there already."""
        row = self._screen.row_number
        before, column = self._screen.before_cursor()
        self._reader.expect_right_prompt()
        nothing_shown = (row, column) == edit.begin and not edit.begin_prompt and not self._without_prompt
        if nothing_shown:
            return  # the prompt is not shown yet
        first = row
        while first > edit.begin[0] and not self._reader.begins_line(first):
            first -= 1
        if first < row:
            before = self._reader.text((first, 0), row - 1, whole=True) + before
        prompt = self._prompt_before_text(before, edit)
        if prompt is not None:
            edit.prompt = prompt
            edit.anchor = (first, self._reader.column_of(first, len(prompt)))
            self._without_prompt = not prompt
            return
        if self._typed:  # not to be placed: a program has read it, and it says nothing about this line
            for line in self._typed:
                if line.entered and line.typed:
                    self._records.unechoed(line.at, line.prompt)
            rest = TypedLine()
            rest.lose()
            self._typed = [] if self._typed[-1].entered else [rest]
        edit.prompt, column = self._screen.before_cursor()
        self._without_prompt = not edit.prompt.strip()
        edit.anchor = (row, column)
        self._prompts.learn(edit.prompt)
        self._records.prompt_shown(edit.prompt, self._screen.after_cursor())

    def _prompt_before_text(self, before: str, edit: Edit) -> str | None:
        """The prompt, where text stands between it and the cursor."""
        if self._prompts.ends(before):
            return None
        if self._typed and self._typed[0].typed:
            echoed = self._reader.text(edit.begin, edit.begin[0])
            if before.endswith(echoed) and echoed and self._typed[0].text.startswith(echoed):
                return before[: -len(echoed)]  # it began to be shown where the editor began to read
            length = self._prompts.match(before, continuation=True)
            if length is not None and length < len(before.rstrip()):
                return before[:length]
            typed = self._typed[0].known_text
            if typed and before.endswith(typed):
                prompt = before[: -len(typed)]
                self._prompts.learn(prompt)
                return prompt
        prompt = self._prompts.beginning(before, least=1 if self.text_given else 5)
        if not prompt and self._typed and before.startswith(edit.begin_prompt):
            prompt = edit.begin_prompt
        return prompt if prompt and before[len(prompt) :].strip() else None

    def end(self, at: float) -> None:
        """The editor has ended: the screen shows what its line has become."""
        edit, self._edit = self._edit, None
        self.text_given = False
        if edit is None:
            return
        last_row = self._last_row(edit)
        line = self._typed[0] if self._typed else None
        entered = edit.enters > 0 or (line is not None and line.entered)
        if self._was_given_up(edit, last_row) or not (entered or self._records.has_tentative):
            self._abandon(edit)
            return
        typed = line.edited_text if line else None
        if edit.enters == 0 and self._records.tentative_before(line.at if line and line.entered else at):
            line, entered = None, False
            first_row = (edit.anchor or edit.begin)[0]
            tentative = self._records.take_tentative(self._reader.text((first_row, 0), last_row).rstrip())
            typed = tentative.typed if tentative else None
        found = self._locate(edit, last_row, typed)
        begin = found or (edit.begin[0], 0)
        text = self._reader.text(begin, last_row, begin[1])
        text = self._reader.without_right_prompt(text, begin)
        text = text.strip("\n").rstrip()
        if not text.strip():
            if typed and typed.strip():
                self._records.unechoed(edit.entered_at or at, edit.prompt)
            del self._typed[:1]
            return
        if line is not None and entered:
            text = spelt_in(text, line.text)
        lines = text.count("\n") + 1
        if lines > 1 and edit.enters > 1:  # each Enter but the last was a new line in the editor: fish
            count = min(lines, edit.enters)
            text, exact = lines_verified(text, [line.edited_text for line in self._typed[:count]])
            del self._typed[:count]
        else:
            text, exact = verified(text, typed)
            if entered:
                del self._typed[:1]
        self._records.command(
            text,
            exact=exact,
            at=edit.entered_at or (line.at if line else at),
            prompt=edit.prompt,
            rows=(begin[0], last_row),
            ahead=edit.enters == 0,
            unplaced=found is None,
        )

    def _last_row(self, edit: Edit) -> int:
        """Readline and fish have begun a new row by now; zsh has not, and its cursor may be inside the line."""
        screen, first = self._screen, (edit.anchor or edit.begin)[0]
        row = screen.row_number
        if screen.x == 0 and not screen.pending_wrap and row > first and not screen.text(row).strip():
            row -= 1
        else:
            row = self._reader.last_row_of(row)
        while row > first and not screen.text(row).strip():
            row -= 1
        return row

    def _was_given_up(self, edit: Edit, last_row: int) -> bool:
        if not edit.interrupted:
            return False
        if edit.enters == 0 or edit.interrupted_at - edit.entered_at > 1.0:
            return True
        return self._screen.text(last_row).rstrip().endswith("^C")

    def _abandon(self, edit: Edit) -> None:
        self._typed.clear()
        self._records.settle()
        self._records.abandon(edit.prompt, (edit.anchor or edit.begin)[0])

    def _locate(self, edit: Edit, last_row: int, typed: str | None) -> Place | None:
        """Where the line begins; None where no prompt is known that may stand before it."""
        if edit.anchor is not None:
            row = edit.anchor[0]
            shown = self._screen.text(row)
            if not edit.prompt.strip():
                edit.prompt = self._prompts.beginning(shown, least=3)  # it may have been shown later
                return (row, self._reader.column_of(row, len(edit.prompt))) if edit.prompt else edit.anchor
            if shown.startswith("<") and not edit.prompt.startswith("<"):
                return row, 0  # a dumb terminal: the prompt was moved out to the left
            return self._reader.find_prompt(edit.prompt, edit.anchor, last_row) or edit.anchor
        found = self._reader.find_line(edit.begin[0], last_row, typed or "", edit.begin_prompt)
        if found is None:
            return None
        begin, edit.prompt = found
        return begin
