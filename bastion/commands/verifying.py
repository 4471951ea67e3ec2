"""Does what was typed confirm what the screen shows? Only what was seen on the screen is ever taken from the keys."""

import re
import unicodedata

MAX_ROWS = 8  # rows into which a background job may have printed
MAX_INTERSPERSED = 256  # characters of a line that is looked for in them: it takes their square of steps

_SPACE = re.compile(r"\s+")
_SPELT_OUT = re.compile(r"<([0-9a-f]{4,5})>")  # zsh shows a combining character as <0301>
_SIDEWAYS = re.compile(r"\s+[<>*+]\s*\Z")
_TAIL_SHOWN = re.compile(r"[<>]\.{2,4}\s")  # zsh shows only the end of a line that is longer than the screen
_TAIL_MARK = re.compile(r"[<>]\.+")


def verified(shown: str, typed: str | None) -> tuple[str, bool]:
    """What was run, and whether keys and screen agree on it. `typed` is None where keys alone do not say it."""
    if typed is None or shown == typed:
        return shown, typed is not None
    screen, keys = shown.strip(), typed.strip()
    if not keys:
        return shown, False
    if (
        _same(screen, keys)
        or _differs_in_display(screen, keys)
        or _interspersed(screen, keys)
        or _higher_than_screen(screen.split("\n"), keys.split("\n"))
    ):
        return typed.rstrip(), True
    return shown, False


def scrolled_sideways(shown: str, typed: str) -> bool:
    """The shell shows only the end of the line that was typed: mksh, and all on a dumb terminal, mark that with `<`."""
    end = _SIDEWAYS.sub("", shown).removeprefix("<").strip()
    least = 6 if len(end) < len(shown.strip()) else 12  # with its mark, and without
    return least <= len(end) < len(typed) and typed.strip().endswith(end)


def lines_verified(shown: str, typed: list[str | None]) -> tuple[str, bool]:
    """The same for a text of several lines, each typed with an Enter of its own."""
    lines = shown.split("\n")
    if len(lines) != len(typed):
        return shown, False
    pairs = [verified(line, keys) for line, keys in zip(lines, typed, strict=True)]
    return "\n".join(line for line, _ in pairs), all(exact for _, exact in pairs)


def _same(screen: str, keys: str) -> bool:
    """The same but for white space, which the right margin takes and a tab changes."""
    return screen == keys or _without_space(screen) == _without_space(keys)


def _differs_in_display(screen: str, keys: str) -> bool:
    """The shell could not show all of it, and showed the rest as typed."""
    if spelt_in(screen, keys) == keys or _without_marks(screen) == _without_marks(keys):
        return True
    if "?" in screen and not keys.isascii() and _question_marks(keys).fullmatch(screen):
        return True
    if screen.startswith("<") and scrolled_sideways(screen, keys):
        return True
    if len(screen) >= 40 and _TAIL_SHOWN.match(screen):
        return _without_space(keys).endswith(_without_space(_TAIL_MARK.sub("", screen, count=1)))
    return False


def _interspersed(screen: str, keys: str) -> bool:
    """A background job printed into the line: all that was typed is there, but not all in one piece."""
    if not 3 <= len(keys) < len(screen):
        return False
    rows = screen.split("\n")
    if 1 < len(rows) <= MAX_ROWS and len(keys) <= MAX_INTERSPERSED:  # it ended its lines, typing went on in the next
        return _begin_with([_without_space(row) for row in rows], _without_space(keys))
    before = _common(screen, keys)
    return before > 0 and before + _common(screen[::-1], keys[::-1]) >= len(keys)


def _higher_than_screen(shown: list[str], typed: list[str]) -> bool:
    """Readline shows of a text with more lines than the screen has rows the first ones; all others in the last row."""
    if not 4 <= len(shown) < len(typed) or not shown[-1].startswith(typed[-1].strip()):
        return False
    return all(_same(*pair) for pair in zip(shown[:-1], typed, strict=False))


def _begin_with(rows: list[str], text: str) -> bool:
    """Each of the rows begins with a part of the text, maybe an empty one, and these are all of it."""
    ends = {0}  # of the part of the text that the rows until now may have shown
    for row in rows:
        ends = {end + length for end in ends for length in range(_common(row, text[end : end + len(row)]) + 1)}
    return len(text) in ends


def _common(one: str, other: str) -> int:
    """How many characters at the beginning of both are the same."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def spelt_in(shown: str, typed: str) -> str:
    """`shown` with the characters that were spelt out as <0301>, where they were typed."""

    def character(spelt: re.Match[str]) -> str:
        meant = chr(int(spelt[1], 16))
        return meant if meant in typed else spelt[0]

    return _SPELT_OUT.sub(character, shown)


def _question_marks(keys: str) -> re.Pattern[str]:
    """busybox shows one ? or more for each character that is not ASCII."""
    parts = []
    for piece in re.findall(r"[?\x80-\U0010ffff]+|[^?\x80-\U0010ffff]+", keys):
        plain = piece[0] != "?" and piece.isascii()
        parts.append(re.escape(piece) if plain else rf"\?{{{len(piece)},{4 * len(piece)}}}")
    return re.compile("".join(parts))


def _without_marks(text: str) -> str:
    """Without what combines with the character before it."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _without_space(text: str) -> str:
    return _SPACE.sub("", unicodedata.normalize("NFC", text))
