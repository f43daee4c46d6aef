"""The test itself: a scene, a picture, the traffic, another picture; then all is taken away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode
from netmonctl.selftest import plan, scene, traffic
from netmonctl.selftest.checks import Trial, disturbance
from netmonctl.selftest.interruption import Interruption
from netmonctl.selftest.picture import Wanted, at_rest, books
from netmonctl.selftest.scene import NEAR

_NO_IPV6 = "this machine has none, or uses the prefixes for documentation"
_BTF = Path("/sys/kernel/btf/vmlinux")
#: A function that came with the version whose programs at a cgroup see answers to new IPv6 connections.
_OF_LINUX_6_6 = b"\0tcx_prog_attach\0"
#: Numbers of the namespaces in which the machine was booted, include/linux/proc_ns.h
_FIRST = {"cgroup": 0xEFFFFFFB, "pid": 0xEFFFFFFC}


def carry_out(client: Client, attach: str | None, progress: Callable[[str], None]) -> Trial:
    """What there is to compare. CtlError: the test could not be made, or something else disturbed it.

    attach: how netmond shall watch the cable, None for its choice.
    progress: told what is being done, nothing at the end.
    """
    off = _features_off(client)
    with Interruption() as interruption:
        try:
            trial = _try(client, attach, off, interruption.check, progress)
        finally:
            progress("")
    if reason := disturbance(trial):
        raise CtlError(f"there is nothing to compare: {reason}; run it again")
    return trial


def _features_off(client: Client) -> dict[str, str]:
    """The parts of netmond that do not work, and why."""
    features = client.describe()["features"]
    return {each["name"]: each["reason"] or "off" for each in features if each["state"] == "off"}


def _try(
    client: Client,
    attach: str | None,
    off: dict[str, str],
    check: Callable[[], None],
    progress: Callable[[str], None],
) -> Trial:
    progress("Making a network namespace ...")
    scene.refuse_second()
    there = _targets(client)
    with scene.furnished(set(there) - set(scene.leftovers(there))) as made:
        addresses = made.addresses
        if not addresses.near6:
            off["ipv6"] = _NO_IPV6
        if left := scene.leftovers(_targets(client)):  # surely of no test that runs: the cable is ours
            client.remove_targets(left)
        with _monitored(client, attach, off), _counted(client, addresses.targets, off) as targets:
            pid = made.near.pid if _is_first("pid") else 0
            wanted = Wanted(pid=pid, targets=targets, books=_has_books(client, off))
            progress("Waiting for silence ...")
            before = at_rest(client, made, wanted, check)
            progress("Sending ...")
            flows = plan.flows(ipv6=bool(addresses.near6))
            ports = traffic.exchange(made, flows, check)
            progress("Waiting for netmond to count ...")
            after = at_rest(client, made, wanted, check)
        return Trial(
            flows=flows,
            ports=ports,
            addresses=addresses,
            before=before,
            after=after,
            merges=made.merges,
            hidden_answers=_hides_answers(),
            pid=pid,
            cgroup=_cgroup(pid),
            off=off,
        )


def _targets(client: Client) -> list[str]:
    return [row["address"] for row in client.listing("Targets", {"limit": 0}).rows]


@contextmanager
def _monitored(client: Client, attach: str | None, off: dict[str, str]) -> Iterator[None]:
    """Monitors the near end, if netmond monitors interfaces at all."""
    if "interfaces" in off:
        yield
        return
    try:
        client.monitor_interface(NEAR, attach)
    except CtlError as error:
        if error.code != ExitCode.UNKNOWN_OBJECT:
            raise
        raise CtlError("netmond runs in another network namespace; run selftest there") from None
    try:
        yield
    finally:
        with suppress(CtlError):
            client.unmonitor_interface(NEAR)


@contextmanager
def _counted(client: Client, targets: list[str], off: dict[str, str]) -> Iterator[list[str]]:
    """Makes the addresses targets; those that are."""
    if "targets" not in off and "interfaces" not in off:
        try:
            client.add_targets(targets)
        except CtlError as error:
            if error.code != ExitCode.FAILURE:
                raise
            off["targets"] = str(error)  # too many, say
    if "targets" in off or "interfaces" in off:
        yield []
        return
    try:
        yield targets
    finally:
        client.remove_targets(targets)


def _has_books(client: Client, off: dict[str, str]) -> bool:
    if "interfaces" in off:
        off["books"] = off["interfaces"]
        return False
    try:
        books(client)
    except CtlError as error:
        if error.code != ExitCode.FAILURE:
            raise
        off["books"] = str(error)
        return False
    return True


def _hides_answers() -> bool:
    try:
        return _OF_LINUX_6_6 not in _BTF.read_bytes()
    except OSError:
        return False  # nor does the meter work


def _is_first(kind: str) -> bool:
    """Whether this is no container of its own, as far as such names and numbers are concerned."""
    return Path("/proc/self/ns", kind).stat().st_ino == _FIRST[kind]


def _cgroup(pid: int) -> str:
    """The control group of a process as netmond names it; empty: nobody can tell."""
    if not pid or not _is_first("cgroup"):
        return ""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return ""
