"""The kinds of hooks by which a stage can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netmond.kernel import wire
from netmond.kernel.variants import CONTEXT

FENTRY, KPROBE, TRACEPOINT, NETFILTER, CGROUP = (
    "fentry",
    "kprobe",
    "raw_tracepoint",
    "netfilter",
    "cgroup_skb",
)

#: Hooks of netfilter, include/uapi/linux/netfilter.h; ways of cgroups, enum bpf_attach_type
_NETFILTER = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_CGROUP = {"ingress": 0, "egress": 1}


@dataclass(frozen=True, slots=True)
class Hook:
    """One way to see a stage.

    arguments: what the hook hands over (wire.PATH_HANDED), and as its how manieth argument. traits:
    wire.PATH_OUT and the like. instead: what is seen, if that is not just the stage. protocol: of all that
    passes only this, 0: all. place, last: of netfilter the hook, and whether after everything else there; of
    cgroups the attach type. shared: of TCP or UDP; all stages that are seen here have one program.
    """

    kind: str
    target: str
    arguments: Mapping[str, int]
    traits: int = 0
    instead: str = ""
    protocol: int = 0
    place: int = 0
    last: bool = False
    shared: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}"


def function(name: str, traits: int = 0, instead: str = "", **arguments: int) -> tuple[Hook, Hook]:
    """A function of the kernel, as it is called."""
    return Hook(FENTRY, name, arguments, traits, instead), Hook(KPROBE, name, arguments, traits, instead)


def tracepoint(name: str, traits: int = 0, instead: str = "", **arguments: int) -> Hook:
    return Hook(TRACEPOINT, name, arguments, traits, instead)


def sent(protocol: int) -> Hook:
    """A call to send that is over, of any kind of socket (Linux 6.3)."""
    traits = wire.PATH_OUT | wire.PATH_CALL | wire.PATH_DONE | wire.PATH_CONNECTED
    said = "when the call is over, with what it has sent"
    arguments = {"socket": 0, "length": 1}
    return Hook(TRACEPOINT, "sock_send_length", arguments, traits, said, protocol, shared=True)


def netfilter(hook: str, traits: int = 0, *, last: bool = False, protocol: int = 0) -> Hook:
    """Before or after everything else at a hook of netfilter, in our network namespace (Linux 6.4)."""
    said = f"{'after' if last else 'before'} all rules of {hook}, in this network namespace only"
    return Hook(NETFILTER, hook, {"packet": 1}, traits, said, protocol, _NETFILTER[hook], last)


def cgroup(way: str, protocol: int, instead: str, traits: int = 0) -> Hook:
    """At the root of all cgroups, which the packets of sockets pass."""
    return Hook(CGROUP, way, {"packet": CONTEXT}, traits, instead, protocol, _CGROUP[way], shared=True)
