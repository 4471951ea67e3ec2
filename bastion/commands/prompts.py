"""Prompts: what stands left of the cursor when a line editor begins to read. Learned, not configured."""

import re
from functools import lru_cache

KNOWN = 12  # prompts that are remembered
LONGEST = 250  # characters of one

# What bash, zsh, fish, dash, tcsh, REPLs show where a command goes on in another row.
_CONTINUATION = r"(?:[>?] |\.\.\. | *\.\.\.> |(?:[a-z]+ )*[a-z]+> )"
_CONTINUATION_ONLY = re.compile(_CONTINUATION + r"\Z|… \Z")
_OPEN = re.compile(r"[>?] |(?:[a-z]+ )*(?:[bd]?quote|heredocd?|pipe|cmd(?:and|or|subst)|then|else|do|for|while)> ")
_CONTINUATION_FIRST = re.compile(_CONTINUATION)
_ENDING = re.compile(r"\W{1,3}\Z")
_VARIABLE = re.compile(r"[\w./~-]+")  # of one prompt to the next: paths, numbers, names
_LIKE_A_PROMPT = re.compile(r"[$#%>\u276f\u00bb)\]:] ?\Z")
_QUESTION = re.compile(r"(?i)passw|passphrase|name|pin:|\?")
_SECRET = re.compile(
    r"[\w .,@/()'\[\]-]{0,80}"
    r"(?i:passw|passphrase|\bpass\b|\bpin\b|secret|token|verification code|\botp\b)"
    r"[^:>?]{0,80}[:>]\Z"
)


def continues(prompt: str) -> bool:
    """A prompt for the rest of a command."""
    return len(prompt) < LONGEST and _CONTINUATION_ONLY.match(prompt) is not None


def asks_for_rest(prompt: str) -> bool:
    """Of these prompts, one that is a shell's for sure, and no REPL's."""
    return _OPEN.fullmatch(prompt) is not None


def joins(prompt: str) -> bool:
    """Of these prompts, one whose line belongs to the same command: a REPL's `...` asks for a line of its own."""
    return "..." not in prompt and continues(prompt)


def looks_like_prompt(text: str) -> bool:
    """By its ending a shell's or a REPL's prompt, and not the question of a program."""
    return bool(_LIKE_A_PROMPT.search(text)) and not _QUESTION.search(text)


def asks_for_secret(text: str) -> bool:
    """The question of a program that turns the echo off."""
    question = text.strip()
    return len(question) < LONGEST and _SECRET.match(question) is not None


def answers_secret(prompt: str) -> bool:
    """What is typed at this prompt is a secret, though the program was too late, or did not care, to turn the echo off.

    A shell's prompt may have such a word in it, in the name of a host, but does not end so.
    """
    return prompt.rstrip().endswith(":") and asks_for_secret(prompt)


@lru_cache(256)
def _shape(text: str) -> str:
    return _VARIABLE.sub("w", text)


class Prompts:
    """The prompts that were seen, the newest first."""

    def __init__(self) -> None:
        self._known: list[str] = []

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._known

    def learn(self, prompt: str) -> None:
        if prompt.strip() and len(prompt) < LONGEST and not continues(prompt):
            if prompt in self._known:
                self._known.remove(prompt)
            self._known.insert(0, prompt)
            del self._known[KNOWN:]

    def beginning(self, text: str, least: int = 1) -> str:
        """The longest known prompt of at least so many characters that `text` begins with; "" where there is none."""
        return max((p for p in self._known if len(p) >= least and text.startswith(p)), key=len, default="")

    def ends(self, text: str) -> bool:
        """`text` ends in a known prompt."""
        return any(text.endswith(prompt) for prompt in self._known)

    def match(self, text: str, *, continuation: bool = False) -> int | None:
        """How many characters of `text` are a prompt: a known one, or one in which only names and numbers differ."""
        known = self.beginning(text)
        if known:
            return len(known)
        for prompt in self._known:
            length = match_prompt(prompt, text)
            if length is not None:
                return length
        if continuation:
            found = _CONTINUATION_FIRST.match(text[:LONGEST])
            if found:
                return found.end()
        return None

    def is_prompt(self, text: str) -> bool:
        """All of `text` is a prompt."""
        return bool(text.strip()) and self.match(text) == len(text)


def match_prompt(prompt: str, text: str) -> int | None:
    """How many characters at the beginning of `text` are this prompt, but for names and numbers."""
    if text.startswith(prompt):
        return len(prompt)
    ending = _ENDING.search(prompt)
    if len(prompt) < 3 or ending is None:
        return None
    shape = _shape(prompt[: ending.start()])
    at = text.find(ending[0], 0, LONGEST)
    for _ in range(16):
        if at < 0:
            return None
        if _shape(text[:at]) == shape:
            return at + len(ending[0])
        at = text.find(ending[0], at + 1, LONGEST)
    return None
