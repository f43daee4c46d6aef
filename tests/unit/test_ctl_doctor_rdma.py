"""What netmonctl doctor finds out about RDMA devices: none is well, too."""

from __future__ import annotations

from typing import Any

import pytest

from netmonctl.doctor.finding import Severity
from netmonctl.doctor.host import Ran
from tests.unit.patient import Case, Illness, Patient, assert_found, both, forbidden, gone, release

WARNING, UNKNOWN, FINE = Severity.WARNING, Severity.UNKNOWN, Severity.FINE

CLASS = "/sys/class/infiniband"
ETHERNET, INFINIBAND = "Ethernet", "InfiniBand"

#: As ``rdma statistic qp mode`` prints it.
UNBOUND = "link mlx5_0/1 mode qp auto off \nlink mlx5_1/1 mode qp auto off \n"
BOUND = "link mlx5_0/1 mode qp auto pid on \nlink mlx5_1/1 mode qp auto type,pid on \n"
BY_TYPE = "link mlx5_0/1 mode qp auto type on \nlink mlx5_1/1 mode qp auto pid on \n"


def device(name: str, link_layer: str = ETHERNET, state: str = "4: ACTIVE", driver: str = "") -> Illness:
    """A device with one port, that has what soft-RoCE's has; a driver, if hardware is behind it."""

    def plug(patient: Patient) -> None:
        port = f"{CLASS}/{name}/ports/1"
        patient.files |= {
            f"{CLASS}/{name}/node_type": "1: CA\n",
            f"{port}/state": f"{state}\n",
            f"{port}/link_layer": f"{link_layer}\n",
            f"{port}/hw_counters/sent_pkts": "23\n",
            "/sys/class/infiniband_verbs/uverbs0/ibdev": f"{name}\n",
        }
        if driver:
            patient.symlinks[f"{CLASS}/{name}/device/driver"] = driver

    return plug


def moved(old: str, new: str) -> Illness:
    """A directory is elsewhere."""

    def move(patient: Patient) -> None:
        patient.files = {path.replace(old, new): text for path, text in patient.files.items()}

    return move


def adapters(mode: str | Ran | None, **more: Any) -> Illness:
    """Two ports of mlx5, and what the command rdma says of their counters."""

    def plug(patient: Patient) -> None:
        for name in ("mlx5_0", "mlx5_1"):
            device(name, INFINIBAND, driver="mlx5_core", **more)(patient)
        patient.programs["rdma"] = mode

    return plug


CASES: dict[str, Case] = {
    "soft-RoCE": (device("rxe0"), "rdma", FINE, "1 port, 1 active, with counters", ""),
    "a cable is missing": (
        both(device("rxe0"), device("mlx4_0", INFINIBAND, "1: DOWN")),
        "rdma", FINE, "2 ports, 1 active, with counters", "",
    ),
    "no uverbs": (
        both(device("rxe0"), gone("/sys/class/infiniband_verbs")),
        "rdma", WARNING, "no program can use them", "modprobe ib_uverbs",
    ),
    "no subnet manager": (
        device("ib0", INFINIBAND, "2: INIT"),
        "rdma", WARNING, "ib0/1 has a link, but no subnet manager", "systemctl start opensm",
    ),
    "Ethernet that begins": (device("rxe0", ETHERNET, "2: INIT"), "rdma", FINE, "1 port, 0 active", ""),
    "no counters": (
        both(device("siw0"), gone(f"{CLASS}/siw0/ports/1/hw_counters")),
        "rdma", WARNING, "siw0/1 has no counters", "use a kernel and a driver",
    ),
    "counters of the device": (
        both(device("efa_0"), moved(f"{CLASS}/efa_0/ports/1/hw_counters", f"{CLASS}/efa_0/hw_counters")),
        "rdma", FINE, "1 port, 1 active, with counters", "",
    ),
    "counters by queue pair": (adapters(BOUND), "rdma", FINE, "2 ports, 2 active", ""),
    "counters of ports only": (
        adapters(UNBOUND),
        "rdma", WARNING, "mlx5_0/1 does not count by process: whose its traffic is nobody knows; 1 more",
        "rdma statistic qp set link mlx5_0/1 auto pid on",
    ),
    "counters that users share": (
        adapters(BY_TYPE), "rdma", WARNING, "mlx5_0/1 does not count by process", "mlx5_0/1 auto pid on",
    ),
    "bytes by queue pair": (
        both(adapters(UNBOUND), release("6.15.2")),
        "rdma", WARNING, "mlx5_0/1 does not count",
        "optional-counters rdma_tx_packets,rdma_tx_bytes,rdma_rx_packets,rdma_rx_bytes; rdma statistic qp",
    ),
    "no command rdma": (adapters(None), "rdma", WARNING, "no rdma to ask", "apt install iproute2"),
    "a command that is refused": (adapters(Ran(code=1, err="no\n")), "rdma", FINE, "2 ports", ""),
    "nothing may be seen": (
        both(device("rxe0"), forbidden(f"{CLASS}/rxe0/ports/1/state")), "rdma", UNKNOWN, "only root", "sudo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_finds(case: Case) -> None:
    """Each thing that may be wrong with RDMA, or may look so."""
    assert_found("surroundings", case)


def rdma(*illnesses: Illness) -> Any:
    patient = Patient()
    for illness in illnesses:
        illness(patient)
    return patient.examine()["surroundings.rdma"]


def test_no_device() -> None:
    """That is well; hardware that could is mentioned to whoever asks for details."""
    patient = Patient()
    patient.files["/sys/class/net/ens1f0/device/"] = ""
    patient.symlinks["/sys/class/net/ens1f0/device/driver"] = "mlx5_core"

    found = patient.examine()["surroundings.rdma"]

    assert (found.word, found.cause, found.remedy) == ("ok", "no RDMA device", "")
    assert found.details == ("ens1f0 (mlx5_core) may have RDMA: modprobe mlx5_ib",)


def test_all_troubles() -> None:
    """The first is told, the others are details, with what to do about each."""
    found = rdma(device("ib0", INFINIBAND, "3: ARMED"), gone("/sys/class/infiniband_verbs"))
    second = "ib0/1 has a link, but no subnet manager has activated it; remedy: start one in the fabric"

    assert found.cause == "there are RDMA devices, but no program can use them; 1 more, see --verbose"
    assert found.details[0] == "ib0/1: armed, InfiniBand"
    assert found.details[1].startswith(second)


def test_a_port_that_vanishes() -> None:
    """One that is gone before its state could be read is not there."""
    found = rdma(device("rxe0"), device("rxe1"), gone(f"{CLASS}/rxe1/ports/1/link_layer"))

    assert found.cause == "1 port, 1 active, with counters"


def test_feature() -> None:
    """Without a device the feature is off, and that is neither good nor bad."""
    patient = Patient()
    for each in patient.status["features"]:
        if each["name"] == "rdma":
            each |= {"state": "off", "reason": "no RDMA device"}

    found = patient.examine()["features.rdma"]

    assert (found.word, found.severity, found.remedy) == ("off", FINE, "")
