"""What the kernel's verifier says of a program that it refuses (Documentation/bpf/verifier.rst)."""

from __future__ import annotations

import re

#: What BCC writes on standard error before the verifier's log (src/cc/libbpf.c).
_BCC_HEADING = re.compile(r"^bpf: Failed to load program: .*\n", re.MULTILINE)

#: How the log itself ends; hints of BCC's may follow.
_STATISTICS = "processed "


def last_words(log: str) -> str:
    """The line with the reason: the last one before the statistics; empty if there is none."""
    lines = [line for line in log.splitlines() if line.strip()]
    end = next((place for place, line in enumerate(lines) if line.startswith(_STATISTICS)), len(lines))
    return lines[end - 1].strip() if end else ""


def last_words_by_bcc(said: str) -> str:
    """The same of what BCC has written when it loaded a program; empty: the verifier did not refuse it."""
    *_, log = _BCC_HEADING.split(said)
    return last_words(log) if re.search(rf"^{_STATISTICS}\d", log, re.MULTILINE) else ""
