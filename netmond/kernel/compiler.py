"""The child that compile.py starts (``python3 -m netmond.kernel.compiler FD``): the only importer of bcc.

It reads a unit from its standard input, and answers at the descriptor.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netmond.errors import KernelError
from netmond.kernel.btf import Btf
from netmond.kernel.defines import kernel_defines
from netmond.kernel.unit import Extra, Program, Unit, source_directory
from netmond.kernel.variants import place_maps
from netmond.kernel.verifier import last_words_by_bcc

#: The directive of such a header. The mark is there for whoever reads the file, too.
_USES_MAPS = re.compile(r'^#include "(\w+\.h)" /\* uses maps \*/$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Product:
    """Descriptors by name, what had to be left out, and instructions."""

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    notes: list[str]
    code: Mapping[str, bytes]


def _load(unit: Unit) -> _Product:
    """As much of the unit as kernel and BCC take."""
    with Btf() as btf:  # also the check that there is one: BCC's own maps and programs are described in it
        found, notes = kernel_defines(btf, unit.offsets)
    # Lockdown in confidentiality mode, for one, forbids reading the kernel's structures.
    plain = {name: value for name, value in found.items() if not name.endswith("_OFFSET")}
    refusal: Exception | None = None
    for defines, blind in ((found, ()), (plain, unit.offsets)):
        for extra in (unit.extra, None) if unit.extra else (None,):
            try:
                product = _compile(unit, defines, extra)
            except Exception as error:
                if not _may_load():
                    raise
                refusal = refusal or error
            else:
                losses = [unit.extra.loss] if unit.extra and not extra else []
                losses += [loss for loss, _ in blind]
                notes += [f"{loss}: {_describe(refusal)}" for loss in losses if refusal]
                return replace(product, notes=[*notes, *product.notes])
    assert refusal
    raise refusal


def _compile(unit: Unit, found: Mapping[str, int], extra: Extra | None) -> _Product:
    import bcc

    directory = source_directory()
    defines = {**unit.defines, **found, **({extra.macro: 1} if extra else {})}
    module = bcc.BPF(
        text=unit.preamble + _text(directory, unit.source),
        cflags=[
            f"-I{directory}",
            "-Wno-macro-redefined",
            *(f"-D{name}={value}" for name, value in defines.items()),
        ],
    )
    for name, descriptor in unit.shared.items():
        # Programs know maps by descriptors until they are loaded: behind this one is now the other map.
        os.dup2(descriptor, _map(module, name))
    programs: dict[str, int] = {}
    notes = []
    for program in unit.programs:
        try:
            programs[program.name] = _load_program(module, program)
        except Exception as error:
            if not program.loss:
                raise
            notes.append(f"{program.loss}: {_describe(error)}")
    names = (*unit.maps, *(extra.maps if extra else ()))
    code = {}
    if unit.code:
        places = {_map(module, name): place for place, name in enumerate(names)}
        code = {name: place_maps(module.dump_func(name), places) for name in unit.code}
    return _Product(programs, {name: os.dup(_map(module, name)) for name in names}, notes, code)


def _load_program(module: Any, program: Program) -> int:
    """The descriptor of a loaded program. KernelError: the verifier refused it, with its last words."""
    import bcc

    stderr = 2
    before = os.fstat(stderr).st_size
    try:
        function = module.load_func(
            program.name, getattr(bcc.BPF, program.kind), None, program.attach_type or 0
        )
    except Exception as error:
        # The exception holds no more than an errno, and that is EACCES for most of what a verifier refuses.
        said = os.pread(stderr, os.fstat(stderr).st_size - before, before).decode(errors="replace")
        if words := last_words_by_bcc(said):
            raise KernelError(f"the kernel's verifier refuses {program.name}: {words}") from error
        raise
    return os.dup(function.fd)  # a duplicate: the module closes its own when it is collected


def _text(directory: Path, source: str) -> str:
    """The C file, with those headers in it that use maps: of all else BCC keeps its hands off, and what is
    done to maps would be compiled as it is written."""
    text = (directory / source).read_text()
    return _USES_MAPS.sub(lambda header: (directory / header[1]).read_text(), text)


def _map(module: Any, name: str) -> int:
    """The descriptor of a module's map, of any kind; module[name] knows some kinds only."""
    import bcc

    descriptor = int(bcc.lib.bpf_table_fd(module.module, name.encode()))
    if descriptor < 0:
        raise KernelError(f"no map {name}")
    return descriptor


def _describe(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "bcc":
        return f"{sys.executable} has no module bcc: install the package python3-bpfcc"
    text = str(error)
    refusals = ("Operation not permitted", "Permission denied", "super-user privileges")
    if any(refusal in text for refusal in refusals) or not _may_load():
        return "not permitted: netmond needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
    return text.splitlines()[0] if text else type(error).__name__


def _may_load() -> bool:
    """Whether this process has CAP_SYS_ADMIN or CAP_BPF, see capabilities(7)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & (1 << 21 | 1 << 39))
    return False


def main(descriptor: int) -> int:
    with socket.socket(fileno=descriptor) as connection:
        wanted = json.load(sys.stdin)
        wanted["programs"] = tuple(Program(**program) for program in wanted["programs"])
        wanted["extra"] = Extra(**wanted["extra"]) if wanted["extra"] else None
        try:
            product = _load(Unit(**wanted))
        except Exception as error:  # whatever it is, the parent needs it in a line
            connection.send(json.dumps({"error": _describe(error)}).encode())
            return 1
        reply = {
            "programs": list(product.programs),
            "maps": list(product.maps),
            "notes": product.notes,
            "code": {name: code.hex() for name, code in product.code.items()},
        }
        descriptors = [*product.programs.values(), *product.maps.values()]
        socket.send_fds(connection, [json.dumps(reply).encode()], descriptors)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
