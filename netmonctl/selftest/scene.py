"""The cable: a veth pair into a namespace of the test's own, with a process at each end.

The namespace has no name and lives as long as the process in it, which ends with its parent; the veth pair
goes with the namespace. So nothing of it can be left behind, not even by SIGKILL.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from netmonctl.errors import CtlError, ExitCode
from netmonctl.selftest import iproute
from netmonctl.selftest.ends import End
from netmonctl.selftest.waiting import within

NEAR, FAR = "nmtest0", "nmtest1"
_ALIAS = "netmonctl selftest, process"
MACS = ("02:6e:6d:74:00:00", "02:6e:6d:74:00:01")

#: TEST-NET-1 to 3 (RFC 5737), the last addresses, which examples use least; of 2001:db8::/32 (RFC 3849) and
#: 3fff::/20 (RFC 9637) a network that nobody else has. Its addresses end in the IPv4 address beside them:
#: who finds one later knows the other, too.
NETWORKS4 = ("192.0.2.248/29", "198.51.100.248/29", "203.0.113.248/29")
NETWORKS6 = ("2001:db8:6e6d:7465:7374::/96", "3fff:e6d:7465:7374::/96")

#: Nobody's, says systemd's list of user ids: behind those of dynamic users, before nobody.
UIDS = range(65520, 65534)

_GONE_WITHIN = 10.0  #: seconds, for the cable of a test that was killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Of both ends; `near6` empty: this machine has no IPv6."""

    near4: str
    far4: str
    near6: str = ""
    far6: str = ""

    def pair(self, family: int) -> tuple[str, str]:
        """The near and the far one."""
        return (self.near4, self.far4) if family == 4 else (self.near6, self.far6)

    @property
    def targets(self) -> list[str]:
        """All of them; the IPv6 ones also where they are not in use: they mark the others as ours."""
        four = self.pair(4)
        six = self.pair(6) if self.near6 else (_marked(NETWORKS6[0], address) for address in four)
        return [*four, *six]


def _marked(network: str, address4: str) -> str:
    return str(ip_network(network)[int(IPv4Address(address4))])


def leftovers(targets: Collection[str]) -> list[str]:
    """Those of some targets that a test has added which could not remove them."""
    ours = [address for address in targets if _is_marked(address)]
    four = [str(IPv4Address(int(IPv6Address(address)) & 0xFFFFFFFF)) for address in ours]
    return [address for address in dict.fromkeys([*ours, *four]) if address in targets]


def _is_marked(address: str) -> bool:
    is_single6 = ":" in address and "/" not in address
    return is_single6 and any(IPv6Address(address) in ip_network(network) for network in NETWORKS6)


def choose_addresses(taken: Collection[str], *, ipv6: bool) -> Addresses:
    """Addresses that lead nowhere else on this machine and are nobody's targets. CtlError."""
    for network in NETWORKS4:
        hosts = [str(host) for host in ip_network(network).hosts()][:2]
        if iproute.is_free(network) and not set(hosts) & set(taken):
            break
    else:
        raise CtlError(f"all of {', '.join(NETWORKS4)} are in use here; the test needs one of them")
    for network in NETWORKS6 if ipv6 else ():
        if iproute.is_free(network):
            six = [_marked(network, host) for host in hosts]
            return Addresses(near4=hosts[0], far4=hosts[1], near6=six[0], far6=six[1])
    return Addresses(near4=hosts[0], far4=hosts[1])


def unused_uids() -> tuple[int, int]:
    """Two user ids without a name and without a process. CtlError."""
    running = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal():
                running.add(entry.stat().st_uid)
    free = [uid for uid in UIDS if uid not in running and not _is_somebody(uid)]
    if len(free) < 2:
        raise CtlError(f"the user ids {UIDS[0]} to {UIDS[-1]} are in use; the test needs two of them")
    return free[0], free[1]


def _is_somebody(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Both ends, furnished; their processes are users that nobody else is."""

    addresses: Addresses
    near: End
    far: End
    near_uid: int
    far_uid: int
    merges: bool  #: whether the near end merges what comes in (GRO)


def refuse_second() -> None:
    """One test at a time. CtlError: whose it is."""
    alias = iproute.alias(NEAR)
    if alias is None:
        return
    if not alias.startswith(_ALIAS):
        raise CtlError(f"there is an interface {NEAR} that no selftest made; it is in the way")
    owner = alias.rpartition(" ")[2]
    if owner.isdecimal() and not Path("/proc", owner).exists():  # its cable is on its way out
        complaint = f"{NEAR} of an earlier test does not vanish"
        within(_GONE_WITHIN, lambda: iproute.alias(NEAR) is None, complaint)
        return
    raise CtlError(f"another selftest is running ({alias}); wait until it is done")


@contextmanager
def furnished(taken: Collection[str]) -> Iterator[Scene]:
    """The scene; leaving the block takes it away. `taken`: targets that there are. CtlError."""
    ipv6 = Path("/proc/sys/net/ipv6/conf").is_dir()
    addresses = choose_addresses(taken, ipv6=ipv6)
    near_uid, far_uid = unused_uids()
    with ExitStack() as stack:
        near, far = End(), End()
        # The cable first: with the namespace it would vanish only a moment later.
        for end in (near, far):
            stack.callback(end.close)
        try:
            far.do("unshare")
        except CtlError as error:
            raise CtlError(f"cannot make a network namespace: {error}", ExitCode.NOT_ALLOWED) from None
        _add_cable(far.pid)
        stack.callback(_remove_cable)
        merges = _furnish(near, far, addresses)
        near.do("become", uid=near_uid)
        far.do("become", uid=far_uid)
        yield Scene(
            addresses=addresses, near=near, far=far, near_uid=near_uid, far_uid=far_uid, merges=merges
        )


def _add_cable(namespace: int) -> None:
    try:
        iproute.batch(
            f"link add {NEAR} address {MACS[0]} type veth"
            f" peer name {FAR} address {MACS[1]} netns {namespace}",
            f'link set {NEAR} alias "{_ALIAS} {os.getpid()}"',
        )
    except CtlError as error:
        refuse_second()  # if it was there a moment later
        raise CtlError(f"cannot make a cable: {error}", error.code) from None


def _remove_cable() -> None:
    with suppress(CtlError):
        iproute.batch(f"link delete {NEAR}")


def _furnish(near: End, far: End, addresses: Addresses) -> bool:
    """Addresses and offloads; whether the near end merges what comes in."""
    if addresses.near6:
        disabled = Path(f"/proc/sys/net/ipv6/conf/{NEAR}/disable_ipv6")
        if disabled.read_text().strip() != "0":  # else there is no need to write, which may be forbidden
            disabled.write_text("0")
    iproute.batch(*_lines(NEAR, addresses.near4, addresses.near6))
    far.do("ip", lines=["link set lo up", *_lines(FAR, addresses.far4, addresses.far6)])
    # The near end hands super-packets of TCP to its device, which has them cut; the far end knows none.
    far.do("features", device=FAR, wanted={"tso": False, "gso": False, "gro": False})
    near.do("features", device=NEAR, wanted={"tso": False, "gso": True})
    try:
        near.do("features", device=NEAR, wanted={"gro": True})
        merges = True
    except CtlError:  # a kernel whose veth cannot
        merges = False
    far.do("watch", device=FAR)
    return merges


def _lines(device: str, four: str, six: str) -> list[str]:
    addresses = [f"addr add {four}/29 dev {device}"]
    addresses += [f"addr add {six}/96 dev {device} nodad"] if six else []
    return [f"link set {device} addrgenmode none", *addresses, f"link set {device} up"]
