"""The network interfaces: what netmond does on each, what else is there, and what is in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netmonctl.doctor.facts import Facts
from netmonctl.doctor.finding import Finding, ok, unknown, warning
from netmonctl.doctor.host import Host, installing
from netmonctl.doctor.kernel import WITH_TCX

#: Of enum in include/uapi/linux/if_link.h (XDP_ATTACHED_*), as ip(8) prints them.
_XDP_MODES = {1: "xdp", 2: "xdp-generic", 3: "xdp-offload"}
#: What ip(8) calls the slot of each mode.
_SLOTS = {"xdp": "xdpdrv", "xdp-generic": "xdpgeneric", "xdp-offload": "xdpoffload"}

_OFFLOAD = {True: "on", False: "off", None: "cannot be asked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Something on an interface's XDP slot. `name` is for those to see who may look at all programs."""

    mode: str
    number: int
    name: str

    def __str__(self) -> str:
        named = f"{self.name!r}, " if self.name else ""
        return f"{named}id {self.number}, {self.mode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the kernel tells (ip(8)), and netmond's row, which is empty without one."""

    name: str
    kind: str
    mtu: int
    up: bool
    programs: tuple[Program, ...]
    row: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hook(self) -> str:
        return str(self.row.get("hook", ""))

    @property
    def strangers(self) -> list[Program]:
        """Without netmond's own: an XDP slot has room for one program of each mode."""
        return [program for program in self.programs if program.mode != self.hook]


def interfaces(host: Host, facts: Facts) -> Iterator[Finding]:
    """One for each interface that netmond watches or could well watch, or that others have programs on."""
    try:
        ran = host.run("ip", "-json", "-details", "link", "show")
        links = json.loads(ran.out) if ran.code == 0 else None
    except FileNotFoundError:
        yield unknown("interfaces", "there is no ip to ask", installing(host, "iproute2", "iproute"))
        return
    except ValueError:
        links = None
    if links is None:
        yield unknown("interfaces", f"ip does not tell: {ran.complaint}")
        return
    rows = {row["name"]: row for row in facts.status["interfaces"]} if facts.status else {}
    devices = [_device(host, link, rows) for link in links if "ifname" in link]
    if facts.status and not any(device.hook for device in devices):
        yield warning("interfaces", "none is monitored", "netmonctl interface add NAME")
    for device in devices:
        if device.hook or device.programs or device.row.get("reason") or _is_hardware(host, device.name):
            yield _finding(host, facts, device)


def _device(host: Host, link: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> Device:
    name = str(link["ifname"])
    return Device(
        name=name,
        kind=_driver(host, name) or link.get("linkinfo", {}).get("info_kind") or str(link.get("link_type")),
        mtu=int(link.get("mtu", 0)),
        up="UP" in link.get("flags", ()),
        programs=tuple(
            Program(
                mode=_XDP_MODES.get(each["mode"], f"mode {each['mode']}"),
                number=each["prog"]["id"],
                name=each["prog"].get("name", ""),
            )
            for each in link.get("xdp", {}).get("attached", ())
        ),
        row=rows.get(name, {}),
    )


def _driver(host: Host, name: str) -> str:
    """The driver of hardware, empty for others and where /sys shows other interfaces than ours."""
    try:
        return host.points_to(f"/sys/class/net/{name}/device/driver")
    except OSError:
        return ""


def _is_hardware(host: Host, name: str) -> bool:
    try:
        return host.exists(f"/sys/class/net/{name}/device")
    except OSError:
        return False


def _finding(host: Host, facts: Facts, device: Device) -> Finding:
    name = device.name
    merges = _merges(host, name)
    details = (
        f"{device.kind}, {'up' if device.up else 'down'}, MTU {device.mtu}",
        *(f"XDP: {program}" for program in device.programs),
        f"large receive offload: {_OFFLOAD[merges]}",
    )
    shown = f"{device.kind}, " + (f"watched with {device.hook}" if device.hook else _unwatched(facts))
    if reason := str(device.row.get("reason", "")):
        return warning(name, f"{shown}: {reason}", _way_out(device), details)
    if device.strangers:
        program = device.strangers[0]
        return warning(
            name,
            f"{shown}; another program is on its XDP slot ({program}): what it drops or redirects"
            " netmond does not see",
            f"bpftool prog show id {program.number}; take off: {_take_off(device)} or bpftool link detach",
            details,
        )
    if merges and device.hook:
        return warning(
            name,
            f"{shown}; large receive offload is on: if the driver does not tell how many packets it has put"
            " together, they count as one",
            f"ethtool -K {name} lro off",
            details,
        )
    if device.hook == "xdp-generic":
        return warning(
            name,
            f"{shown}: the kernel makes an XDP packet of each, which costs more than tc",
            f"netmonctl interface add {name} --attach tc",
            details,
        )
    if device.hook == "tc" and facts.kernel >= WITH_TCX:
        why = "though the kernel has tcx: a filter stays if netmond is killed"
        return warning(name, f"{shown} {why}", details=details)
    return ok(name, shown, *details)


def _unwatched(facts: Facts) -> str:
    return "not watched" if facts.status else "watched by nobody"


def _merges(host: Host, name: str) -> bool | None:
    """None: the interface does not tell."""
    try:
        return host.merges_on_receive(name)
    except OSError:
        return None


def _way_out(device: Device) -> str:
    """For an interface that is not watched as wished."""
    if device.strangers:
        return f"{_take_off(device)} && netmonctl interface add {device.name} --attach xdp"
    return f"netmonctl interface add {device.name} --attach tc"


def _take_off(device: Device) -> str:
    return f"ip link set dev {device.name} {_SLOTS.get(device.strangers[0].mode, 'xdp')} off"
