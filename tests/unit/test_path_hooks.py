"""Stages of the path find a hook by trying, and say why the others were refused; the filter picks stages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from ipaddress import ip_network
from socket import AF_INET
from typing import Any

import pytest

from netmond.errors import KernelError
from netmond.kernel import libbpf, syscalls, wire
from netmond.kernel.btf import Btf
from netmond.path.filters import Options, filter_source, wanted_hooks, why_not
from netmond.path.hook_kinds import Hook, function, netfilter, tracepoint
from netmond.path.hooks import Hooks
from netmond.path.stages import STAGES, Stage

_TRACING, _KPROBE, _NETFILTER = 26, 2, 32  # enum bpf_prog_type


class Kernel:
    """Takes programs of some kinds only; its descriptors are real ones, of /dev/null."""

    def __init__(self, patch: pytest.MonkeyPatch, *kinds: int) -> None:
        self.kinds = kinds
        self.attached: list[Any] = []
        patch.setattr(libbpf, "load_program", self._load)
        patch.setattr(libbpf, "open_raw_tracepoint", self._attach("tracepoint"))
        patch.setattr(syscalls, "attach_kprobe", self._attach("kprobe"))
        patch.setattr(syscalls, "link_netfilter", self._attach("netfilter"))

    def _load(self, kind: int, name: str, code: bytes, **_: int) -> int:
        if kind not in self.kinds:
            raise KernelError(
                "not permitted: netmond needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
            )
        return self._descriptor()

    def _attach(self, what: str) -> Callable[..., int]:
        def attach(*arguments: Any, **named: Any) -> int:
            self.attached.append((what, *(each for each in arguments if isinstance(each, str))))
            return self._descriptor()

        return attach

    @staticmethod
    def _descriptor() -> int:
        return os.open("/dev/null", os.O_RDONLY)


_HOOKS = (*function("ip_rcv", packet=0), netfilter("prerouting"))
_STAGE = Stage(name="ip_rcv", direction="in", layer="ip", hooks=_HOOKS, family=AF_INET)


def resolved(patch: pytest.MonkeyPatch, *kinds: int, hooks: tuple[Hook, ...] = _HOOKS) -> Any:
    kernel = Kernel(patch, *kinds)
    with Btf() as btf:
        made = Hooks(b"", btf, -1)
        found = made.resolve(0, _STAGE, hooks)
        made.close()
    return kernel, found


def test_the_first_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other is tried."""
    kernel, found = resolved(monkeypatch, _TRACING, _KPROBE, _NETFILTER)

    assert (found.state, found.hook, found.reason, found.tried) == ("on", "fentry:ip_rcv", "", ())
    assert kernel.attached == [("tracepoint",)]


def test_the_next_one_says_what_is_seen_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reasons of those before it."""
    monkeypatch.setattr(Btf, "offset", lambda *_: 8)
    _, found = resolved(monkeypatch, _NETFILTER)

    assert (found.state, found.hook) == ("replaced", "netfilter:prerouting")
    assert found.reason == "before all rules of prerouting, in this network namespace only"
    assert found.tried[0] == "fentry:ip_rcv: this kernel refuses such programs"
    assert found.tried[1].startswith("kprobe:ip_rcv: not permitted")


def test_what_the_kernel_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its BTF says so before anything is loaded."""
    hooks = function("no_such_thing", packet=0)[0], tracepoint("nor_this", packet=0)
    kernel, found = resolved(monkeypatch, _TRACING, hooks=hooks)

    assert (found.state, found.hook, found.reason) == ("off", None, "no hook for it in this kernel")
    assert found.tried == (
        "fentry:no_such_thing: this kernel has no such function",
        "raw_tracepoint:nor_this: this kernel has no such tracepoint",
    )
    assert kernel.attached == []


def test_one_program_for_stages_that_have_a_hook_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attaches it, for any protocol and family; each says which packets are its own."""
    kernel = Kernel(monkeypatch, _TRACING)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        libbpf, "map_update", lambda _, key, value: told.append((int(key[0]), int(value[0])))
    )
    stages = [STAGE[name] for name in ("tcp_sendmsg", "udp_sendmsg", "udpv6_sendmsg")]
    with Btf() as btf:
        made = Hooks(b"", btf, -1)
        found = [made.resolve(number, stage, stage.hooks[-1:]) for number, stage in enumerate(stages)]
        made.close()

    assert kernel.attached == [("tracepoint",)]
    assert {each.hook for each in found} == {"raw_tracepoint:sock_send_length"}
    assert told == [(0, 1), (1, 1), (2, 2), (3, 3)]


def test_a_structure_without_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers of another machine: the reason, and no program."""

    def missing(_: Btf, structure: str, member: str) -> int:
        raise KernelError(f"the kernel's BTF has no {structure}.{member}")

    monkeypatch.setattr(Btf, "offset", missing)
    _, found = resolved(monkeypatch, _KPROBE, hooks=_HOOKS[1:2])

    assert found.tried == ("kprobe:ip_rcv: not known where this machine has a function's arguments",)


def word(digits: str) -> int:
    """Eight bytes of an address as a program loads them."""
    return int.from_bytes(bytes.fromhex(digits), sys.byteorder)


def test_the_filter_is_constants() -> None:
    """Addresses as words with masks, IPv4 mapped; what is not asked for is true."""
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))
    options = Options(addresses=networks, ports=(53, 443), protocols=("icmp",), users=(0,))
    text = filter_source(options)

    assert "((number) == 1 || (number) == 58)" in text
    assert "((port) == 53 || (port) == 443)" in text
    assert "((uid) == 0U)" in text
    assert "((address)[0] & 0xffffffffffffffffULL) == 0x0ULL" in text  # ::ffff:192.0.2.0/120
    mask, value = word("ffffffffffffff00"), word("0000ffffc0000200")
    assert f"((address)[1] & {mask:#x}ULL) == {value:#x}ULL" in text
    assert filter_source(Options()).count("(true)") == 4


STAGE = {stage.name: stage for stage in STAGES}


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("ip_rcv", Options(), ""),
        ("ip_rcv", Options(stages=("kfree_skb",)), "not asked for"),
        ("ip_rcv", Options(stages=("kprobe:ip_rcv",)), ""),
        ("ip_rcv", Options(drops=True), "not asked for: only drops, retransmits and resets are"),
        ("tcp_send_reset", Options(drops=True), ""),
        ("tcp_send_reset", Options(protocols=("udp", "icmp")), "no packet of these protocols passes it"),
        ("icmpv6_rcv", Options(protocols=("icmp",)), ""),
        ("icmpv6_rcv", Options(ports=(443,)), "what passes it has no ports"),
        ("ip_rcv", Options(addresses=(ip_network("::1"),)), "no packet of these addresses passes it"),
        ("ip_rcv", Options(addresses=(ip_network("::1"), ip_network("127.0.0.1"))), ""),
        ("kfree_skb", Options(addresses=(ip_network("::1"),)), ""),
    ],
)
def test_stages_that_cannot_match(name: str, options: Options, reason: str) -> None:
    """They are not attached, for a reason."""
    assert why_not(STAGE[name], options) == reason


def test_one_kind_of_hook_for_a_stage() -> None:
    """KIND:NAME is for that stage only."""
    options = Options(stages=("kprobe:ip_rcv", "ip_output"))

    assert [str(hook) for hook in wanted_hooks(STAGE["ip_rcv"], options)] == ["kprobe:ip_rcv"]
    assert wanted_hooks(STAGE["ip_output"], options) == STAGE["ip_output"].hooks


def test_the_table() -> None:
    """Numbers fit, names are unique, and the way is in order: what comes in is behind what goes out."""
    assert len(STAGES) <= wire.PATH_STAGES
    assert len(STAGE) == len(STAGES)
    ways = [stage.direction for stage in STAGES if stage.event == wire.PATH_PASS]
    assert ways == sorted(ways, key=lambda way: way != "out")
    shared = {str(hook) for stage in STAGES for hook in stage.hooks if hook.shared}
    assert len(shared) <= wire.PATH_SHARED_HOOKS
    for stage in STAGES:
        assert stage.hooks
        for hook in stage.hooks:
            assert hook.arguments.keys() <= set(wire.PATH_HANDED)
            assert (stage.direction == "out") == bool(hook.traits & wire.PATH_OUT), stage.name
            assert not hook.protocol or hook.protocol in stage.protocols
