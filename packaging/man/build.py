"""Writes the man pages: ``python3 packaging/man/build.py DIRECTORY``.

The prose is in the .rst files beside this one. What the code knows better - options, commands, keys, D-Bus
members, messages - comes from the code through ``.. reference:: NAME``, see `reference.REFERENCES`. Its body
may say more about some entries: the entry's name, and indented below it what to add.

Needs python3-docutils and what netmond.config imports; no service, no bus, no kernel. The date in the pages
is that of SOURCE_DATE_EPOCH, else of today.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.core import publish_string
from docutils.parsers.rst import Directive, directives
from docutils.utils import SystemMessage
from docutils.writers import manpage

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import reference  # noqa: E402 - it and what follows are of this tree, wherever the build was started

from netmond import __version__  # noqa: E402

#: A paragraph's request where man(7) makes the space by itself.
SUPERFLUOUS_SPACE = re.compile(r"^(\.S[HS] .*\n)\.sp\n", re.MULTILINE)


class Reference(Directive):  # type: ignore[misc]
    """``.. reference:: NAME [ARGUMENT...]``: a part of the page that is made from the code."""

    required_arguments = 1
    optional_arguments = 9
    has_content = True

    def run(self) -> list[nodes.Node]:
        name, *arguments = self.arguments
        try:
            text = reference.REFERENCES[name](notes(self.content), *arguments)
        except (KeyError, ValueError) as error:
            raise self.error(f"reference {' '.join(self.arguments)}: {error}") from None
        self.state_machine.insert_input(text.splitlines(), f"{name} of the code")
        return []


def notes(lines: Sequence[str]) -> dict[str, list[str]]:
    """The body of a directive: names at the margin, text indented below each."""
    found: dict[str, list[str]] = {}
    text: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            text = found.setdefault(line, [])
        else:
            text.append(line.removeprefix("   "))
    return found


class Translator(manpage.Translator):  # type: ignore[misc]
    """docutils' own, with date and version, and with requests that every formatter knows."""

    def __init__(self, document: nodes.document) -> None:
        super().__init__(document)
        now = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
        self._docinfo["date"] = time.strftime("%Y-%m-%d", time.gmtime(now))
        self._docinfo["version"] = f"netmond {__version__}"
        self.defs["literal_block"] = (".sp\n.EX\n", "\n.EE\n")
        self.defs["term"] = ("\n", "\n")

    def header(self) -> str:
        """As systemd's pages: names of commands and files are not hyphenated, lines not stretched."""
        heading, rest = super().header().split("\n", 1)
        return f".nr HY 0\n{heading}\n.nh\n.ad l\n.ss 12 0\n{rest}"


class Writer(manpage.Writer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.translator_class = Translator


def page(source: Path) -> str:
    """One page in roff. What docutils has to complain about is an error."""
    settings: dict[str, Any] = {
        "output_encoding": "unicode", "halt_level": 2, "report_level": 2, "file_insertion_enabled": False,
        "_disable_config": True,
    }  # fmt: skip
    text: str = publish_string(
        source.read_text(encoding="utf-8"), str(source), writer=Writer(), settings_overrides=settings
    )
    return SUPERFLUOUS_SPACE.sub(r"\1", text)


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: build.py DIRECTORY", file=sys.stderr)
        return 2
    directives.register_directive("reference", Reference)
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted(HERE.glob("*.rst")):
        try:
            text = page(source)
        except SystemMessage:  # it has said what and where
            return 1
        (directory / source.stem).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
