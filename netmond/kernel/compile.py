"""Compiles and loads BPF programs in a short-lived child: the only importer of bcc.

bcc brings LLVM: 65 MB to import, 50 to 120 more for a compile, never given back. So a child does it and
passes the descriptors of maps and programs over a socketpair (SCM_RIGHTS, unix(7)); when it ends they
live on in the daemon.

As a program (``python3 -m netmond.kernel.compile FD``) this module is that child.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netmond.errors import KernelError
from netmond.kernel.verifier import last_words_by_bcc

if TYPE_CHECKING:
    from netmond.kernel.btf import Btf

_MAX_DESCRIPTORS = 64
_MAX_REPLY = 1 << 16
#: The directive of such a header. The mark is there for whoever reads the file, too.
_USES_MAPS = re.compile(r'^#include "(\w+\.h)" /\* uses maps \*/$', re.MULTILINE)
_TIMEOUT = 240.0  # seconds; a compile takes less than one, but on a machine busy with its boot it may wait


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
    from the kernel's structures, if that is not what the meter's programs read.
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
    offsets: Offsets = field(default_factory=lambda: METER_OFFSETS)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Descriptors by name, owned by whoever holds this. `notes` tells what had to be left out.

    `code` are instructions of functions, with places in `maps` where descriptors of maps are to be.
    """

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    notes: tuple[str, ...]
    code: Mapping[str, bytes] = field(default_factory=dict)

    def close(self) -> None:
        for descriptor in (*self.programs.values(), *self.maps.values()):
            os.close(descriptor)


def source_directory() -> Path:
    """Where the C files are: beside the package in a source tree, else where the package installs them."""
    beside = Path(__file__).resolve().parents[2] / "bpf"
    return beside if beside.is_dir() else Path("/usr/share/netmond/bpf")


class Compilation:
    """A child at work on one unit. Start several, then collect: they run side by side."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The order is a file: a preamble may be larger than what a socket or a pipe takes at once.
        # What the child says is one, too: it reads there itself what the verifier had to say.
        self._said = os.memfd_create("said")
        with theirs, open(os.memfd_create("unit"), "w+b") as order:
            order.write(json.dumps(asdict(unit)).encode())
            order.seek(0)
            environment = {**os.environ, "BCC_KERNEL_SOURCE": str(source_directory() / "kheaders")}
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *unit.shared.values()),
                stdin=order,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env=environment,
                cwd=Path(__file__).resolve().parents[2],
            )
        self._ours.settimeout(_TIMEOUT)

    def result(self) -> Loaded:
        """Waits for the child. KernelError: what failed, in a line."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._ours, _MAX_REPLY, _MAX_DESCRIPTORS)
            for descriptor in descriptors:  # recv_fds() passes no MSG_CMSG_CLOEXEC on
                os.set_inheritable(descriptor, False)
        except OSError as error:
            data, descriptors = b"", []
            self._child.kill()
            reason = f"the compiler did not answer ({error})"
        else:
            reason = ""
        finally:
            self._ours.close()
        self._child.wait()
        with open(self._said, "rb") as file:
            file.seek(0)
            said = file.read().decode(errors="replace").strip().splitlines()
        if not data:
            reason = reason or (said[-1] if said else f"the compiler ended with {self._child.returncode}")
            raise KernelError(f"cannot load {self._unit.source}: {reason}")
        reply = json.loads(data)
        if "error" in reply:
            raise KernelError(f"cannot load {self._unit.source}: {reply['error']}")
        names = reply["programs"]
        return Loaded(
            programs=dict(zip(names, descriptors[: len(names)], strict=True)),
            maps=dict(zip(reply["maps"], descriptors[len(names) :], strict=True)),
            notes=tuple(reply["notes"]),
            code={name: bytes.fromhex(code) for name, code in reply["code"].items()},
        )


# -- the child ---------------------------------------------------------------------------------------


METER_OFFSETS: Offsets = (
    ("users of user namespaces appear under their inner ids", (("SOCK_UID_OFFSET", "sock", "sk_uid"),)),
    (
        "flows name no interface",
        # a struct sock begins with a struct sock_common
        (("SOCK_NET_OFFSET", "sock_common", "skc_net"), ("NET_COOKIE_OFFSET", "net", "net_cookie")),
    ),
    (
        "a fragmented datagram counts as one packet for its user",
        (
            ("SKB_DEV_OFFSET", "sk_buff", "dev"),
            ("SKB_CB_OFFSET", "sk_buff", "cb"),
            ("SKB_ROUTE_OFFSET", "sk_buff", "_skb_refdst"),
            ("DEV_MTU_OFFSET", "net_device", "mtu"),
            ("ROUTE_METRICS_OFFSET", "dst_entry", "_metrics"),
            ("ROUTE_EXPIRES_OFFSET", "dst_entry", "expires"),
            ("ROUTE_LEARNED_MTU_OFFSET", "rtable", "rt_pmtu"),  # a struct rtable begins with a dst_entry
            ("CB4_FRAGMENT_OFFSET", "inet_skb_parm", "frag_max_size"),
            ("CB6_FRAGMENT_OFFSET", "inet6_skb_parm", "frag_max_size"),
        ),
    ),
    (
        "the kernel's own answers are root's",
        (("SOCK_SOCKET_OFFSET", "sock", "sk_socket"), ("SOCKET_FILE_OFFSET", "socket", "file")),
    ),
    (
        "a capture knows no units of incoming frames",
        (
            ("SOCK_CGROUP_OFFSET", "sock", "sk_cgrp_data"),
            ("CGROUP_DATA_OFFSET", "sock_cgroup_data", "cgroup"),
            ("CGROUP_NODE_OFFSET", "cgroup", "kn"),
            ("NODE_ID_OFFSET", "kernfs_node", "id"),
        ),
    ),
    (
        "sockets older than netmond have no process",
        (
            ("TASK_TGID_OFFSET", "task_struct", "tgid"),
            ("TASK_START_OFFSET", "task_struct", "start_boottime"),
            ("TASK_COMM_OFFSET", "task_struct", "comm"),
            ("FILE_INODE_OFFSET", "file", "f_inode"),
            ("FILE_DATA_OFFSET", "file", "private_data"),
            ("INODE_MODE_OFFSET", "inode", "i_mode"),
            ("SOCKET_SK_OFFSET", "socket", "sk"),
            ("SOCK_FAMILY_OFFSET", "sock_common", "skc_family"),
            ("SOCK_COOKIE_OFFSET", "sock_common", "skc_cookie"),
        ),
    ),
)

#: A program at a cgroup sees no answer to a new IPv6 connection (SYN-ACK) before Linux 6.6, whose
#: BPF_CGROUP_RUN_PROG_INET_EGRESS() (include/linux/bpf-cgroup.h) knows a request's listener. Nothing in the
#: kernel tells; tcx came with the same version, and where BPF is backported it comes as a whole.
_OF_LINUX_6_6 = "tcx_prog_attach"
_HIDDEN_ANSWERS = "answers to new IPv6 connections (SYN-ACK) are no user's: that takes Linux 6.6"


def _kernel_defines(btf: Btf, offsets: Offsets, notes: list[str]) -> dict[str, int]:
    """What the running kernel offers beyond the oldest supported one."""
    defines = {}
    if btf.has_function("bpf_ktime_get_coarse_ns"):
        defines["COARSE_CLOCK"] = 1
    if not btf.has_function(_OF_LINUX_6_6):
        defines["HIDDEN_ANSWERS"] = 1
        notes.append(_HIDDEN_ANSWERS)
    for loss, wanted in offsets:
        try:
            defines.update({macro: btf.offset(structure, member) for macro, structure, member in wanted})
        except KernelError as error:
            notes.append(f"{loss}: {error}")
    return defines


@dataclass(frozen=True, slots=True)
class _Product:
    """Descriptors by name, what had to be left out, and instructions."""

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    notes: list[str]
    code: Mapping[str, bytes]


def _load(unit: Unit) -> _Product:
    """As much of the unit as kernel and BCC take."""
    from netmond.kernel.btf import Btf

    notes: list[str] = []
    with Btf() as btf:  # also the check that there is one: BCC's own maps and programs are described in it
        found = _kernel_defines(btf, unit.offsets, notes)
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
        from netmond.kernel.variants import place_maps

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
