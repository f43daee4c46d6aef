"""Trees of /sys/class/infiniband as the kernel shows them, for tests that have no RDMA hardware.

Names of files are those of Documentation/ABI/stable/sysfs-class-infiniband, and below drivers/infiniband of
hw/mlx5/counters.c and sw/rxe/rxe_hw_counters.c; texts are as core/sysfs.c there writes them.
Soft-RoCE's tree is one of Linux 6.1, as it was recorded there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

#: PortCounters and PortCountersExtended.
COUNTERS = (
    "VL15_dropped", "excessive_buffer_overrun_errors", "link_downed",
    "link_error_recovery", "local_link_integrity_errors", "multicast_rcv_packets",
    "multicast_xmit_packets", "port_rcv_constraint_errors", "port_rcv_data",
    "port_rcv_errors", "port_rcv_packets", "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors", "port_xmit_constraint_errors", "port_xmit_data",
    "port_xmit_discards", "port_xmit_packets", "port_xmit_wait",
    "symbol_error", "unicast_rcv_packets", "unicast_xmit_packets",
)  # fmt: skip
#: Q counters of ConnectX-5 and later.
MLX5 = (
    "duplicate_request", "implied_nak_seq_err", "local_ack_timeout_err",
    "out_of_buffer", "out_of_sequence", "packet_seq_err",
    "req_cqe_error", "req_cqe_flush_error", "req_remote_access_errors",
    "req_remote_invalid_request", "resp_cqe_error", "resp_cqe_flush_error",
    "resp_local_length_error", "resp_remote_access_errors", "rnr_nak_retry_err",
    "rx_atomic_requests", "rx_dct_connect", "rx_read_requests",
    "rx_write_requests",
)  # fmt: skip
#: On an Ethernet port beyond those.
MLX5_ROCE = (
    "np_cnp_sent", "np_ecn_marked_roce_packets", "roce_adp_retrans",
    "roce_adp_retrans_to", "roce_slow_restart", "roce_slow_restart_cnps",
    "roce_slow_restart_trans", "rp_cnp_handled", "rp_cnp_ignored",
    "rx_icrc_encapsulated",
)  # fmt: skip
RXE = (
    "ack_deferred", "completer_retry_err", "duplicate_request",
    "link_downed", "out_of_seq_request", "rcvd_pkts",
    "rcvd_rnr_err", "rcvd_seq_err", "rdma_recvs",
    "rdma_sends", "retry_exceeded_err", "retry_rnr_exceeded_err",
    "send_err", "send_rnr_err", "sent_pkts",
)  # fmt: skip

_NO_GID = ":".join(["0000"] * 8)


class RdmaTree:
    """A tree below a directory: give `root` to whoever reads /sys/class/infiniband."""

    def __init__(self, directory: Path) -> None:
        self.sys = directory / "sys"
        self.root = self.sys / "class/infiniband"
        self.root.mkdir(parents=True)

    def mlx5(
        self,
        name: str = "mlx5_0",
        *,
        ports: int = 1,
        link_layer: str = "InfiniBand",
        netdevs: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        """A ConnectX adapter at 100 Gbit/s. netdevs: of each port; more: further hw_counters."""
        place = self._device(
            name, f"devices/pci0000:00/{name}", guid=f"b859:9f03:00c9:{len(list(self.root.iterdir())):04x}"
        )
        (place.parent.parent / "driver").symlink_to(self.sys / "bus/pci/drivers/mlx5_core")
        (place / "device").symlink_to("../..")
        ethernet = link_layer == "Ethernet"
        for port in range(1, ports + 1):
            directory = place / f"ports/{port}"
            files = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": link_layer}
            files |= {"rate": "100 Gb/sec (4X EDR)", "lid": "0x0" if ethernet else f"0x{port + 10:x}"}
            _write(directory, files)
            _write(directory / "counters", dict.fromkeys(COUNTERS, 0))
            hardware = (*MLX5, *(MLX5_ROCE if ethernet else ()), *more)
            _write(directory / "hw_counters", dict.fromkeys(hardware, 0) | {"lifespan": 10})
            netdev = netdevs[port - 1] if netdevs else ""
            if netdev:
                self._netdev(netdev, port, None if ethernet else place.parent.parent)
            link_local = "fe80:0000:0000:0000:ba59:9fff:fec9:0001"
            gids = [(link_local, "IB/RoCE v1")]
            if ethernet:
                gids += [(link_local, "RoCE v2"), ("0000:0000:0000:0000:0000:ffff:c633:6402", "RoCE v2")]
            _gids(directory, gids, netdev if ethernet else "", places=20 if ethernet else 8)

    def rxe(self, name: str = "rxe0", *, netdev: str = "eth0", places: int = 20) -> None:
        """Soft-RoCE over a network interface: no port counters, and no device below it.

        places: of GIDs, of which two are used; really there are 1,024
        """
        place = self._device(name, "devices/virtual", guid="08b6:15ff:fe99:43c4")
        _write(place, {"parent": netdev, "fw_ver": ""})
        directory = place / "ports/1"
        files = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": "Ethernet"}
        _write(directory, files | {"rate": "10 Gb/sec (1X FDR10)", "lid": "0x0"})
        _write(directory / "hw_counters", dict.fromkeys(RXE, 0) | {"lifespan": 10})
        self._netdev(netdev, 1, None)
        addresses = ("fe80:0000:0000:0000:08b6:15ff:fe99:43c4", "0000:0000:0000:0000:0000:ffff:c633:6401")
        _gids(directory, [(each, "RoCE v2") for each in addresses], netdev, places=places)

    def remove(self, name: str) -> None:
        """The device is unplugged, or its driver unloaded."""
        link = self.root / name
        shutil.rmtree(link.resolve())
        link.unlink()

    def set(self, device: str, port: int = 1, **counters: int | str) -> None:
        """Counters by the names of their files, wherever they are; new ones are hw_counters."""
        directory = self.port(device, port)
        for name, value in counters.items():
            group = "counters" if (directory / "counters" / name).exists() else "hw_counters"
            _write(directory / group, {name: value})

    def state(self, device: str, port: int = 1, *, state: str, physical: str) -> None:
        """As the kernel writes them: ``1: DOWN``, ``3: Disabled``."""
        _write(self.port(device, port), {"state": state, "phys_state": physical})

    def port(self, device: str, port: int = 1) -> Path:
        return self.root / device / f"ports/{port}"

    def _device(self, name: str, where: str, guid: str) -> Path:
        place = self.sys / where / "infiniband" / name
        _write(
            place, {"node_type": "1: CA", "node_guid": guid, "sys_image_guid": guid, "fw_ver": "20.31.1014"}
        )
        (self.root / name).symlink_to(place)
        return place

    def _netdev(self, name: str, port: int, device: Path | None) -> None:
        directory = self.sys / "class/net" / name
        index = 2 + sum(1 for _ in directory.parent.glob("*"))
        _write(directory, {"ifindex": index, "dev_port": port - 1})
        if device:
            (device / "net").mkdir(exist_ok=True)
            (device / "net" / name).symlink_to(directory)


def _gids(port: Path, gids: Sequence[tuple[str, str]], netdev: str, *, places: int) -> None:
    """The GID table: addresses with their types, and empty places behind them."""
    table = [address for address, _ in gids] + [_NO_GID] * (places - len(gids))
    _write(port / "gids", {str(index): address for index, address in enumerate(table)})
    _write(port / "gid_attrs/types", {str(index): kind for index, (_, kind) in enumerate(gids)})
    _write(port / "gid_attrs/ndevs", {str(index): netdev for index in range(len(gids)) if netdev})


def _write(directory: Path, files: Mapping[str, int | str]) -> None:
    """Files of one line, replaced in place: whoever holds one open reads what is there now."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(f"{text}\n")
