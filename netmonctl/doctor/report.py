"""The findings as text and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from netmonctl import __version__
from netmonctl.doctor.examination import Section
from netmonctl.doctor.finding import Finding, Severity
from netmonctl.render import Style, cells, escape, plural

HUES = {Severity.FINE: "green", Severity.WARNING: "yellow", Severity.FAILED: "red"}

_LEAST = 30  #: cells for a text; on narrower terminals lines are longer than the terminal


def well(sections: Sequence[Section]) -> bool:
    """Whether nothing failed."""
    return not _count(sections)[Severity.FAILED]


def document(sections: Sequence[Section]) -> dict[str, Any]:
    """The JSON form: every finding with the section it belongs to."""
    return {
        "version": __version__,
        "well": well(sections),
        "counts": {severity.value: _count(sections)[severity] for severity in Severity},
        "checks": [
            {"section": section.title.lower(), **finding.plain()}
            for section in sections
            for finding in section.findings
        ],
    }


def page(sections: Sequence[Section], style: Style, verbose: bool, legend: bool) -> list[str]:
    """The text form: a line for each finding, with a remedy below it where something is to be done."""
    findings = [finding for section in sections for finding in section.findings]
    names = max((cells(escape(finding.name)) for finding in findings), default=0)
    words = max((len(finding.word) for finding in findings), default=0)
    lines = []
    for section in sections:
        if section.findings:
            lines += [style.paint(section.title, "bold")] if legend else []
            for finding in section.findings:
                lines += _entry(finding, names, words, style, verbose)
            lines += [""] if legend else []
    return [*lines, _summary(sections)] if legend else lines


def _entry(finding: Finding, names: int, words: int, style: Style, verbose: bool) -> Iterator[str]:
    hue = HUES.get(finding.severity)
    on = finding.severity is not Severity.UNKNOWN and finding.state != "off"
    dot = style.paint(style.dot(on), *([hue] if hue and not _unwanted(finding) else []))
    name = escape(finding.name)
    head = f"{dot} {name}{' ' * (names - cells(name))}  {escape(finding.word):<{words}}"
    indent = 2 + names + 2 + words + 2
    first, *rest = _wrapped(finding.cause, style, indent) or [""]
    yield f"{head}  {first}".rstrip()
    yield from (" " * indent + line for line in rest)
    if verbose:
        needs = [f"needs {', '.join(finding.needs)}"] if finding.needs else []
        for detail in filter(None, (*finding.details, *needs)):
            yield from (" " * indent + style.paint(line, "dim") for line in _wrapped(detail, style, indent))
    if finding.remedy:
        # Never wrapped: it is there to be copied.
        yield f"{' ' * indent}{style.paint('remedy:', 'bold')} {escape(finding.remedy)}"


def _unwanted(finding: Finding) -> bool:
    """A feature that is off as it shall be is neither good nor bad."""
    return finding.state == "off" and finding.severity is Severity.FINE


def _wrapped(text: str, style: Style, indent: int) -> list[str]:
    text = escape(text)
    if style.width is None:
        return [text]
    width = max(_LEAST, style.width - indent)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _count(sections: Sequence[Section]) -> Counter[Severity]:
    return Counter(finding.severity for section in sections for finding in section.findings)


def _summary(sections: Sequence[Section]) -> str:
    count = _count(sections)
    parts = [f"{count[Severity.FINE]} fine", plural(count[Severity.WARNING], "warning")]
    parts += [f"{count[Severity.UNKNOWN]} unknown", f"{count[Severity.FAILED]} failed"]
    return f"{plural(sum(count.values()), 'check')}: {', '.join(parts)}."
