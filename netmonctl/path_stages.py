"""The stages of a path: which are there on this kernel, by which hook, and why not otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netmonctl.render import Column, Style, clip, escape, table, text

Stage = Mapping[str, Any]

_HUES = {"on": (), "replaced": ("yellow",), "off": ("red",)}

_COLUMNS = (
    text("STAGE", "stage"),
    text("DIR", "direction", drop=2),
    text("LAYER", "layer", drop=3),
    Column(
        title="STATE",
        key="state",
        show=lambda row, _: escape(str(row["state"])),
        hue=lambda shown: _HUES.get(shown, ()),
    ),
    text("HOOK", "hook"),
    text("WHY", "reason", shrink=12),
)


def directions(stages: Iterable[Stage]) -> dict[str, str]:
    """in, out or both, by the names of the stages that are to be had."""
    return {stage["stage"]: stage["direction"] for stage in stages if stage["state"] != "off"}


def listing(stages: Sequence[Stage], style: Style, *, full: bool) -> list[str]:
    """A table of the stages; with `full` all that was tried before the chosen hook, too."""
    header, *lines = table(_COLUMNS, [_named(stage) for stage in stages], style)
    out = [header]
    for stage, line in zip(stages, lines, strict=True):
        out.append(line)
        if full:
            out += [style.paint(_fitted(f"    tried {each}", style), "dim") for each in stage["tried"]]
    return out


def _named(stage: Stage) -> Stage:
    """Without a hook that is None, so that the table shows that there is none."""
    return {key: value for key, value in stage.items() if value is not None}


def missing(stages: Iterable[Stage], style: Style, *, full: bool) -> list[str]:
    """What is to be said before the first packet: the stages that are off, in one line.

    `full`: why, line by line, and also what the replaced ones could not have. A stage for which nothing was
    tried is not missed: what is asked for does not pass it.
    """
    tried = [stage for stage in stages if stage["tried"]]
    lines = []
    if full:
        for stage in tried:
            if stage["state"] != "on":
                lines.append(f"{stage['stage']} is {stage['state']}: {stage.get('reason', '')}")
                lines += [f"  tried {each}" for each in stage["tried"]]
    elif off := [stage["stage"] for stage in tried if stage["state"] == "off"]:
        lines.append(f"not here: {', '.join(off)} (netmonctl path -d says why)")
    return [style.paint(_fitted(f"# {line}", style), "dim") for line in lines]


def _fitted(line: str, style: Style) -> str:
    line = escape(line)
    return line if style.width is None else clip(line, style.width)
