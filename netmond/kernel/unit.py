"""What is to be compiled and loaded: a C file, its sizes, and what is wanted from it. Light to import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One function to load. `kind` is a bcc.BPF constant's name, `attach_type` an enum bpf_attach_type.

    `loss` says what is lost if the kernel refuses it; if empty, the unit cannot do without.
    """

    name: str
    kind: str
    attach_type: int | None = None
    loss: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A part of a C file behind `#ifdef macro`, with maps of its own, which not every kernel and BCC take.

    `loss` says what is lost without.
    """

    macro: str
    maps: tuple[str, ...]
    loss: str


#: What is lost without them, and members of the kernel's structures as (macro, structure, member)
Offsets = tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One C file, the sizes it is compiled with, and the programs and maps wanted from it.

    `place` is what its programs attach to, if that is settled. `preamble` is C text that comes before the
    file, made for this one use. `shared` are maps that exist already, by name and descriptor: the programs
    use them in the place of what the file declares under that name, of the same kind and sizes. `code` are
    functions that are not loaded but handed over, see variants.py. `offsets` is what it would like to read
    from the kernel's structures.
    """

    source: str
    defines: Mapping[str, int]
    programs: tuple[Program, ...]
    maps: tuple[str, ...]
    extra: Extra | None = None
    place: str = ""
    preamble: str = ""
    shared: Mapping[str, int] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    offsets: Offsets = ()

    @property
    def name(self) -> str:
        return Path(self.source).stem

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits: the same for builds that can go on with each other's programs."""
        directory = source_directory()
        hash_ = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for path in (directory / self.source, *sorted(directory.glob("*.h"))):
            hash_.update(path.read_bytes())
        return hash_.hexdigest()[:12]


def source_directory() -> Path:
    """Where the C files are: beside the package in a source tree, else where the package installs them."""
    beside = Path(__file__).resolve().parents[2] / "bpf"
    return beside if beside.is_dir() else Path("/usr/share/netmond/bpf")
