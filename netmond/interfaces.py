"""Which interfaces are monitored and how: follows them as they come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from netmond.books import Look
from netmond.config import InterfacesConfig
from netmond.errors import InvalidArgs, KernelError, NetmondError, NoSuchInterface, Unavailable
from netmond.kernel.devices import Device, choose
from netmond.kernel.queues import Queue
from netmond.model import Feature, FeatureState, InterfaceInfo
from netmond.ports import Ports
from netmond.topology import roles

log = logging.getLogger(__name__)

_XDP_MODES = ("xdp", "xdp-generic")
_INSTEAD = ", tc used instead"


class Attached(Protocol):
    """Programs on an interface: kernel.links.Attachment, or a fake."""

    hook: str

    def close(self) -> None: ...


class Interfaces:
    """Keeps what is monitored in step with the configuration, the administrator and the kernel."""

    def __init__(
        self,
        config: InterfacesConfig,
        *,
        ports: Ports,
        attach: Callable[[int, str], Attached],
        devices: Callable[[], Mapping[int, Device]],
        queues: Callable[[], Mapping[int, Queue]] = dict,
    ) -> None:
        """attach(ifindex, mode) puts the programs on an interface or raises KernelError."""
        self._config = config
        self._ports = ports
        self._attach = attach
        self._devices = devices
        self._queues = queues
        self._attached: dict[int, Attached] = {}
        self._reasons: dict[int, str] = {}
        self._added: dict[str, str] = {}  # at run time: name -> mode
        self._removed: set[str] = set()
        self._infos: dict[int, InterfaceInfo] = {}

    @property
    def by_hand(self) -> tuple[dict[str, str], list[str]]:
        """What was added at run time, with its mode, and what was removed."""
        return dict(self._added), sorted(self._removed)

    def choose(self, added: Mapping[str, str], removed: Iterable[str]) -> None:
        """Repeats what was done by hand before; takes effect at the next refresh()."""
        self._added, self._removed = dict(added), set(removed)

    @property
    def infos(self) -> Mapping[int, InterfaceInfo]:
        """All interfaces by index, as of the last refresh()."""
        return self._infos

    def look(self, *, kernel_first: bool) -> Look:
        """All counters of this moment, for the books: the kernel's, then the programs', or the other way."""
        words = {} if kernel_first else self._ports.words()
        present, queues = self._devices(), self._queues()
        return Look(
            devices=present,
            queues=queues,
            words=self._ports.words() if kernel_first else words,
            hooks={index: attached.hook for index, attached in self._attached.items()},
        )

    def refresh(self, present: Mapping[int, Device] | None = None) -> None:
        """Looks at what interfaces there are, unless told; begins and ends monitoring accordingly."""
        if present is None:
            present = self._devices()
        wanted = self._wanted(present)
        for ifindex in [index for index in self._ports if index not in wanted]:
            self._close(ifindex)
        for ifindex in [index for index in self._reasons if index not in wanted]:
            del self._reasons[ifindex]
        for ifindex, mode in wanted.items():
            if ifindex not in self._attached and ifindex not in self._reasons:
                self._open(present[ifindex], mode)
        self._arrange(present)
        self._infos = {index: self._info(device.info) for index, device in present.items()}

    def prepare(self) -> None:
        """Gives all that is to be monitored its counters; the next refresh() lets programs count there."""
        present = self._devices()
        for ifindex in self._wanted(present):
            if ifindex not in self._ports:
                self._count(present[ifindex])
        self._arrange(present)

    def configure(self, config: InterfacesConfig) -> None:
        """Takes a new configuration; what was added or removed by hand stays so."""
        for ifindex, attached in list(self._attached.items()):
            name = self._infos[ifindex].name
            if self._mode(config, name) != self._mode(self._config, name):
                log.debug("%s changes from %s", name, attached.hook)
                self._close(ifindex)
        self._reasons.clear()
        self._config = config
        self.refresh()

    def add(self, name: str, mode: str) -> None:
        """Monitors an interface from now on. NoSuchInterface, Unavailable (and then nothing has changed)."""
        ifindex = self._index(name)
        before = self._added.get(name), name in self._removed
        self._detach(ifindex)  # the figures go on
        self._reasons.pop(ifindex, None)
        self._added[name] = mode
        self._removed.discard(name)
        self.refresh()
        attached = self._attached.get(ifindex)
        if attached is None or (mode in _XDP_MODES and attached.hook != mode):
            reason = self._reasons.get(ifindex, "it has vanished").removesuffix(_INSTEAD)
            if before[0] is None:
                del self._added[name]
            else:
                self._added[name] = before[0]
            if before[1]:
                self._removed.add(name)
            self._detach(ifindex)
            self._reasons.pop(ifindex, None)
            self.refresh()
            if ifindex not in self._attached:
                self._close(ifindex)
            raise Unavailable(f"cannot monitor {name}: {reason}")

    def remove(self, name: str) -> None:
        """Stops monitoring an interface. NoSuchInterface; InvalidArgs: it is not monitored."""
        ifindex = self._index(name)
        if ifindex not in self._attached:
            raise InvalidArgs(f"{name} is not monitored")
        self._added.pop(name, None)
        self._removed.add(name)
        self.refresh()

    def close(self) -> None:
        for ifindex in list(self._attached):
            self._close(ifindex)

    def feature(self) -> Feature:
        """On; degraded with the interfaces that are not as wished; or without any."""
        failed = [f"{self._infos[index].name}: {reason}" for index, reason in self._reasons.items()]
        present = {info.name for info in self._infos.values()}
        failed += [
            f"{name}: no such interface (yet)"
            for name in self._config.monitor
            if name not in present | {"auto"}
        ]
        if failed:
            return Feature(name="interfaces", state=FeatureState.DEGRADED, reason="; ".join(failed))
        if not self._attached:
            reason = "no interface found to monitor: netmonctl interface add NAME"
            return Feature(name="interfaces", state=FeatureState.DEGRADED, reason=reason)
        return Feature(name="interfaces", state=FeatureState.ON)

    def _arrange(self, present: Mapping[int, Device]) -> None:
        try:
            self._ports.arrange(roles(present, self._attached))
        except KernelError as error:  # they stand as before: something may be counted twice
            log.warning("Cannot tell how interfaces stand on each other: %s", error)

    def _wanted(self, present: Mapping[int, Device]) -> dict[int, str]:
        names = (choose(self._config.monitor, dict(present)) | self._added.keys()) - self._removed
        return {
            index: self._mode(self._config, device.info.name)
            for index, device in present.items()
            if device.info.name in names
        }

    def _mode(self, config: InterfacesConfig, name: str) -> str:
        return self._added.get(name) or config.attach_for(name)

    def _index(self, name: str) -> int:
        self.refresh()
        for index, info in self._infos.items():
            if info.name == name:
                return index
        raise NoSuchInterface(f"there is no interface {name!r}: see netmonctl interfaces")

    def _open(self, device: Device, mode: str) -> None:
        """Begins monitoring, or goes on in another way; falls back from XDP to tc, and says so."""
        index, name = device.info.index, device.info.name
        if index not in self._ports:
            self._count(device)
        if index in self._reasons:
            return
        try:
            self._attached[index] = self._attach(index, mode)
        except KernelError as error:
            self._reasons[index] = str(error)
            if mode in _XDP_MODES:
                self._reasons[index] = f"{mode} refused ({error}){self._instead(index)}"
            if index not in self._attached:
                self._ports.close(index)
            log.warning("Interface %s: %s", name, self._reasons[index])
            return
        log.info("Monitoring %s with %s", name, self._attached[index].hook)

    def _count(self, device: Device) -> None:
        """Begins counting, as far as our side goes; or notes why not."""
        try:
            self._ports.open(device.info.index, link_header=device.link_header, loopback=device.loopback)
        except NetmondError as error:
            self._reasons[device.info.index] = str(error)

    def _instead(self, index: int) -> str:
        try:
            self._attached[index] = self._attach(index, "tc")
        except KernelError as error:
            return f", tc too ({error})"
        return _INSTEAD

    def _detach(self, ifindex: int) -> None:
        attached = self._attached.pop(ifindex, None)
        if attached is not None:
            attached.close()

    def _close(self, ifindex: int) -> None:
        self._detach(ifindex)
        if ifindex in self._ports:
            self._ports.close(ifindex)

    def _info(self, info: InterfaceInfo) -> InterfaceInfo:
        attached = self._attached.get(info.index)
        return replace(
            info,
            monitored=attached is not None,
            hook=attached.hook if attached else "",
            reason=self._reasons.get(info.index, ""),
        )
