"""Filters as tcpdump takes them (pcap-filter(7)), translated by libpcap to classic BPF (linux/filter.h).

The text comes from whoever may capture, and libpcap's parser and optimizer are written in C: so a child
does it that has no capability, little memory and a few seconds, and ends. It looks names up as far as the
daemon's sandbox lets it: services in /etc/services, hosts in /etc/hosts, but not by DNS.

**VLAN tags.** A frame is filtered as it is on the wire, tag included. tcpdump on an interface asks the
kernel, which keeps the tag beside the frame: there ``tcp port 80`` finds tagged frames, too, while ``tcpdump
-r`` does not find them in the file that was written. People expect what they know from interfaces, so a
filter that does not speak of ``vlan`` looks behind one tag, if there is one; one that does means what
pcap-filter(7) says. Either way ``len`` and ``ether[…]`` are of the frame on the wire.

As a program (``python3 -m netmond.frames.expressions``) this module is that child: a list of (link type,
expression) as JSON on standard input, an answer for each on standard output.
"""

from __future__ import annotations

import ctypes
import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_uint8, c_uint16, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from netmond.errors import InvalidArgs, Unavailable

#: LINKTYPE_* (https://www.tcpdump.org/linktypes.html): frames with an Ethernet header, and IP packets
ETHERNET, RAW = 1, 101
_DLT = {ETHERNET: 1, RAW: 12}  # as libpcap counts them inside

_SNAPLEN = 262_144  # what a program returns for a match; any other number would do
_TIMEOUT = 15.0  # seconds, most of it for names
_CPU, _MEMORY = 5, 256 << 20
_REJECTS_ALL = "expression rejects all packets"
_MENTIONS_TAG = re.compile(r"(?<![\w.:\\-])vlan(?![\w.:-])")


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    jt: int
    jf: int
    k: int


Classic = tuple[Instruction, ...]

#: BPF_RET | BPF_K: nothing matches
NOTHING: Classic = (Instruction(0x06, 0, 0, 0),)


@dataclass(frozen=True, slots=True)
class Filter:
    """What decides about frames of one link type; `tagged`: about those with a VLAN tag, None: the same."""

    plain: Classic
    tagged: Classic | None = None


def compile_filter(text: str, linktypes: Iterable[int]) -> dict[int, Filter]:
    """The filter for each of some link types (ETHERNET, RAW).

    What is about Ethernet matches nothing where there is none, but is an error if that is so everywhere.
    InvalidArgs: what libpcap has against it, in a line. Unavailable: there is no libpcap.
    """
    wanted = sorted(set(linktypes))
    if "\0" in text:
        raise InvalidArgs("the filter has a NUL in it")
    behind_tag = f"vlan and ({text})"
    asked = [(linktype, text) for linktype in wanted]
    if ETHERNET in wanted and text.strip() and not _MENTIONS_TAG.search(text):
        asked.append((ETHERNET, behind_tag))
    programs: dict[tuple[int, str], Classic] = {}
    refused: dict[tuple[int, str], str] = {}
    for key, answer in zip(asked, translate(asked), strict=True):
        if isinstance(answer, str):
            refused[key] = answer
        else:
            programs[key] = answer
    wrong = refused.get((wanted[0], text))  # Ethernet, if that is one of them
    if (ETHERNET, behind_tag) in refused and refused[ETHERNET, behind_tag] != _REJECTS_ALL:
        wrong = wrong or f"{refused[ETHERNET, behind_tag]}, in frames with a VLAN tag"
    if wrong:
        hint = "; give its address" if wrong.startswith("unknown host") else ""
        raise InvalidArgs(f"filter: {wrong}{hint}")
    return {
        linktype: Filter(
            programs.get((linktype, text), NOTHING),
            programs.get((linktype, behind_tag), NOTHING) if (linktype, behind_tag) in asked else None,
        )
        for linktype in wanted
    }


def translate(asked: Sequence[tuple[int, str]]) -> list[Classic | str]:
    """What libpcap makes of (link type, expression): for each a program, or what is wrong with it."""
    libc = ctypes.CDLL(None)

    def give_up_ambient() -> None:
        """Or execve(2) would hand capabilities down, and the sandbox forbids to give them up later."""
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)

    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked).encode(),
            capture_output=True,
            timeout=_TIMEOUT,
            cwd=Path(__file__).resolve().parents[2],
            preexec_fn=give_up_ambient,
        )
    except subprocess.TimeoutExpired:
        raise InvalidArgs(
            f"filter: it took libpcap more than {_TIMEOUT:.0f} s; names may be the reason, addresses are not"
        ) from None
    if child.returncode < 0:
        ended = signal.Signals(-child.returncode).name
        why = f"in {_CPU} s" if -child.returncode == signal.SIGXCPU else f"({ended})"
        raise InvalidArgs(f"filter: libpcap could not cope with it {why}; a shorter one may do")
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Unavailable(f"filters are unavailable: {said[-1]}")
    return [
        answer if isinstance(answer, str) else tuple(Instruction(*each) for each in answer)
        for answer in json.loads(child.stdout)
    ]


# -- the child ---------------------------------------------------------------------------------------


class _Program(ctypes.Structure):
    """struct bpf_program, <pcap/bpf.h>."""

    class Instruction(ctypes.Structure):
        _fields_ = (("code", c_uint16), ("jt", c_uint8), ("jf", c_uint8), ("k", c_uint32))

    _fields_ = (("length", c_uint32), ("instructions", POINTER(Instruction)))


_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_NETMASK_UNKNOWN = 0xFFFFFFFF


def _confine() -> None:
    """No capability (capset(2)), and no more of anything than it takes. OSError: some are left."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    libc.capget(header, sets)
    held = any(sets[0:2]) or any(sets[3:5])  # what could be inherited by others is nothing to us
    if held and libc.capset(header, (c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "cannot give up capabilities")
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU, _CPU + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _open_library() -> ctypes.CDLL:
    """libpcap under the name Debian gives it, or others."""
    for name in ("libpcap.so.0.8", "libpcap.so.1"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = c_void_p
        library.pcap_compile.argtypes = [c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32]
        library.pcap_freecode.argtypes = [POINTER(_Program)]
        library.pcap_geterr.argtypes = [c_void_p]
        library.pcap_geterr.restype = c_char_p
        library.pcap_close.argtypes = [c_void_p]
        return library
    sys.exit("libpcap is missing: install the package libpcap0.8")


def _translate(library: ctypes.CDLL, linktype: int, text: str) -> list[tuple[int, int, int, int]] | str:
    """The instructions, or libpcap's own words."""
    handle = library.pcap_open_dead(_DLT[linktype], _SNAPLEN)
    program = _Program()
    try:
        if library.pcap_compile(handle, byref(program), text.encode(), 1, _NETMASK_UNKNOWN):
            said = library.pcap_geterr(handle).decode(errors="replace")
            return "libpcap has not enough memory for it; a shorter one may do" if said == "malloc" else said
        made = [(each.code, each.jt, each.jf, each.k) for each in program.instructions[: program.length]]
        library.pcap_freecode(byref(program))
        return made
    finally:
        library.pcap_close(handle)


def main() -> None:
    _confine()
    library = _open_library()
    json.dump([_translate(library, *each) for each in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
