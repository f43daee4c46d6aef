"""RDMA devices: whether there are any, whether programs can use them, and what of their figures can be had.

What everybody may read tells: /sys/class/infiniband (Documentation/ABI/stable/sysfs-class-infiniband).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from netmonctl.doctor.facts import Facts
from netmonctl.doctor.finding import Finding, ok, warning
from netmonctl.doctor.host import Host, installing, text
from netmonctl.render import plural

CLASS, VERBS, NETDEVS = "/sys/class/infiniband", "/sys/class/infiniband_verbs", "/sys/class/net"

#: Drivers of network interfaces, and the module by which their hardware does RDMA.
_MODULES = {
    "bnxt_en": "bnxt_re", "cxgb4": "iw_cxgb4", "hns3": "hns_roce_hw_v2", "i40e": "irdma", "ice": "irdma",
    "mana": "mana_ib", "mlx4_en": "mlx4_ib", "mlx5_core": "mlx5_ib", "qede": "qedr",
}  # fmt: skip

#: The driver whose devices count by queue pair, once these are bound to counters (rdma-statistic(8)).
_BINDING = "mlx5_core"
#: From this version on such counters hold bytes, too.
_WITH_BYTES = (6, 15)
_BYTES = "rdma_tx_packets,rdma_tx_bytes,rdma_rx_packets,rdma_rx_bytes"
#: A line of ``rdma statistic qp mode``.
_MODE = re.compile(r"(\w[\w.-]*/\d+):? mode (.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What sysfs tells of a port; the driver is empty if nothing stands behind the device."""

    name: str
    driver: str
    state: str
    link_layer: str
    counters: str  #: a directory with counters, empty: there is none


@dataclass(frozen=True, slots=True)
class Trouble:
    cause: str
    remedy: str


def rdma(host: Host, facts: Facts) -> Finding:
    """The worst that is wrong with any of the ports."""
    name = "rdma"
    ports = list(_ports(host))
    if not ports:
        return ok(name, "no RDMA device", *_dormant(host))
    lines = tuple(f"{port.name}: {port.state}, {port.link_layer}" for port in ports)
    troubles = list(_troubles(host, facts, ports))
    if troubles:
        more = f"; {len(troubles) - 1} more, see --verbose" if len(troubles) > 1 else ""
        rest = tuple(f"{each.cause}; remedy: {each.remedy}" for each in troubles[1:])
        return warning(name, f"{troubles[0].cause}{more}", troubles[0].remedy, (*lines, *rest))
    active = sum(port.state == "active" for port in ports)
    return ok(name, f"{plural(len(ports), 'port')}, {active} active, with counters", *lines)


def _ports(host: Host) -> Iterator[Port]:
    """All ports. One that vanishes meanwhile is left out."""
    for device in _names(host, CLASS):
        for number in _names(host, f"{CLASS}/{device}/ports"):
            path = f"{CLASS}/{device}/ports/{number}"
            with suppress(FileNotFoundError):
                groups = [f"{path}/counters", f"{path}/hw_counters"]
                if number == "1":  # drivers that count by device only: netmond takes that for its first port
                    groups.append(f"{CLASS}/{device}/hw_counters")
                yield Port(
                    name=f"{device}/{number}",
                    driver=_driver(host, f"{CLASS}/{device}/device"),
                    state=text(host, f"{path}/state").partition(": ")[2].lower(),  # such as "4: ACTIVE"
                    link_layer=text(host, f"{path}/link_layer"),
                    counters=next((group for group in groups if _names(host, group)), ""),
                )


def _names(host: Host, path: str) -> list[str]:
    try:
        return host.names(path)
    except FileNotFoundError:
        return []


def _driver(host: Host, device: str) -> str:
    try:
        return host.points_to(f"{device}/driver")
    except FileNotFoundError:
        return ""


def _dormant(host: Host) -> Iterator[str]:
    """Interfaces whose hardware may do RDMA, if somebody wants that."""
    for netdev in _names(host, NETDEVS):
        driver = _driver(host, f"{NETDEVS}/{netdev}/device")
        if module := _MODULES.get(driver):
            yield f"{netdev} ({driver}) may have RDMA: modprobe {module}"


def _troubles(host: Host, facts: Facts, ports: list[Port]) -> Iterator[Trouble]:
    if not host.exists(VERBS):
        yield Trouble("there are RDMA devices, but no program can use them", "modprobe ib_uverbs")
    for port in ports:
        if not port.counters:
            yield Trouble(
                f"{port.name} has no counters that can be read",
                "use a kernel and a driver that have them; netmond tells what interfaces see of it",
            )
        if port.state in ("init", "armed") and port.link_layer == "InfiniBand":
            yield Trouble(
                f"{port.name} has a link, but no subnet manager has activated it",
                "start one in the fabric: systemctl start opensm, or switch on that of the switch",
            )
    if any(port.driver == _BINDING for port in ports):
        yield from _unbound(host, facts)


def _unbound(host: Host, facts: Facts) -> Iterator[Trouble]:
    """Ports whose counters are not of queue pairs, so that nobody can say whose they are."""
    try:
        ran = host.run("rdma", "statistic", "qp", "mode")
    except FileNotFoundError:
        yield Trouble(
            "there is no rdma to ask whether devices count by queue pair",
            installing(host, "iproute2", "iproute"),
        )
        return
    for port, mode in _MODE.findall(ran.out):
        if "pid" not in mode:
            remedy = f"rdma statistic qp set link {port} auto pid on"
            if facts.kernel >= _WITH_BYTES:
                remedy = f"rdma statistic set link {port} optional-counters {_BYTES}; {remedy}"
            yield Trouble(f"{port} does not count by process: whose its traffic is nobody knows", remedy)


CHECKS = {"rdma": rdma}
