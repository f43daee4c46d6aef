"""Text as reStructuredText, and lists of terms with their meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: What a page adds to entries, by their names: lines of reStructuredText.
Notes = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A term that is explained. `name` is how notes refer to it; `text` None: only a note can explain it."""

    name: str
    term: str
    text: str | None


def definitions(entries: Iterable[Entry], notes: Notes) -> str:
    """A definition list of all entries, each with its note below its text."""
    lines: list[str] = []
    left = dict(notes)
    for entry in entries:
        note = left.pop(entry.name, [])
        if entry.text is None and not note:
            raise ValueError(f"nothing explains {entry.name}")
        text = [*(entry.text or "").splitlines(), "", *note]
        lines += [entry.term, *(f"   {line}".rstrip() for line in "\n".join(text).strip().splitlines()), ""]
    if left:
        raise ValueError(f"there is no {', '.join(left)}")
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text in which nothing is markup."""
    return re.sub(r"([*`|_\\])", r"\\\1", text)


def sentence(text: str) -> str:
    """A help text as a sentence of its own: capital, full stop, nothing of it markup."""
    text = plain(text.strip())
    capital = "" if text.startswith("netmond") else text[:1].upper()
    return (capital or text[:1]) + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def emphasised(text: str) -> str:
    """Text in which names of keys (in_bytes) and of members and errors (ListUsers) stand out."""
    pieces = re.split(r"((?<![\w.])(?:[a-z]+(?:_[a-z0-9]+)+|(?:[A-Z][a-z]+){2,})(?!\w))", text)
    return "".join(rf"**{piece}**\ " if place % 2 else plain(piece) for place, piece in enumerate(pieces))


def literal(text: str) -> str:
    return f"``{text}``"
