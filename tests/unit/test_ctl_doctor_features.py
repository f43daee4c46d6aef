"""The whole of netmonctl doctor: a healthy machine, features, and a machine that shows nothing."""

from __future__ import annotations

from pathlib import Path

from netmonctl.doctor.features import _UNWANTED, NEEDS
from netmonctl.doctor.finding import Finding, Severity
from netmond.outputs.worker import DISABLED
from tests.unit.patient import (
    FEATURES,
    NO_BUS,
    NOT_RUNNING,
    Illness,
    Patient,
    file,
    gone,
    link,
    row,
    xdp,
)

ROOT = Path(__file__).parents[2]

WARNING, FAILED, UNKNOWN, FINE = Severity.WARNING, Severity.FAILED, Severity.UNKNOWN, Severity.FINE

BTF, LOCKDOWN = "/sys/kernel/btf/vmlinux", "/sys/kernel/security/lockdown"


def test_healthy() -> None:
    """On a machine where nothing is wrong everything is fine, and nobody is told to do anything."""
    found = Patient().examine()

    assert {name for name, each in found.items() if each.severity is not FINE or each.remedy} == set()
    assert {name.partition(".")[0] for name in found} == {
        "features", "service", "kernel", "surroundings", "interfaces",
    }  # fmt: skip


def feature(name: str, state: str, reason: str, *illnesses: Illness) -> Finding:
    """What is found of a feature that netmond describes so."""
    patient = Patient()
    for each in patient.status["features"]:
        if each["name"] == name:
            each |= {"state": state, "reason": reason}
    for illness in illnesses:
        illness(patient)
    return patient.examine()[f"features.{name}"]


def test_feature_off() -> None:
    """netmond's own reason; the remedy is that of what it depends on, and was found broken."""
    found = feature("meter", "off", "cannot load sockets.c: no BTF", gone(BTF))

    assert (found.word, found.severity, found.cause) == ("off", FAILED, "cannot load sockets.c: no BTF")
    assert "CONFIG_DEBUG_INFO_BTF" in found.remedy
    assert found.details[0].startswith("btf: the kernel has no type information")
    assert {"btf", "cgroups", "capabilities"} <= set(found.needs)


def test_feature_off_for_no_known_reason() -> None:
    """The journal may tell more."""
    found = feature("targets", "off", "cannot load interfaces.c: Invalid argument")

    assert found.remedy == "journalctl -u netmond.service -b"


def test_feature_degraded() -> None:
    """Is a warning, and leads to what is in the way."""
    found = feature("meter", "degraded", "flows name no interface", file(LOCKDOWN, "none [confidentiality]"))

    assert (found.word, found.severity) == ("degraded", WARNING)
    assert found.remedy == "boot with lockdown=integrity"


def test_interfaces_degraded() -> None:
    """The remedy is that of the interface that netmond complains of, not of another one."""
    found = feature(
        "interfaces", "degraded", "eth0: xdp refused, tc used instead",
        link("veth7", **xdp(1, 7)), row("eth0", reason="xdp refused, tc used instead"),
    )  # fmt: skip

    assert found.remedy == "netmonctl interface add eth0 --attach tc"


def test_feature_unwanted() -> None:
    """What the configuration switches off is neither a failure nor worth a remedy."""
    for name, reason in (("meter", "switched off by [meter] enabled"), ("output.csv", DISABLED)):
        found = feature(name, "off", reason)
        assert (found.word, found.severity, found.remedy) == ("off", FINE, "")


def test_words_for_the_unwanted_are_netmonds() -> None:
    """What the doctor takes for a wish is what netmond says of one."""
    sources = [path.read_text() for path in (ROOT / "netmond").rglob("*.py")]

    assert [words for words in _UNWANTED if not any(f'"{words}' in source for source in sources)] == []


def test_polkit_is_optional() -> None:
    """A machine may do without."""
    assert feature("polkit", "off", "polkit is not there").severity is WARNING


def test_foreign_feature() -> None:
    """Outputs of others are told as netmond tells them."""
    patient = Patient()
    mine = {"name": "output.mine", "state": "off", "reason": "cannot be imported"}
    patient.status["features"].append(mine)

    found = patient.examine()["features.output.mine"]

    assert (found.severity, found.cause, found.needs) == (FAILED, "cannot be imported", ())


def test_features_of_a_stopped_netmond() -> None:
    """All are off, and those that would not work say so beforehand."""
    patient = Patient()
    patient.stop()
    patient.remove(BTF)

    found = patient.examine()

    assert {each.word for name, each in found.items() if name.startswith("features.")} == {"off"}
    assert found["features.output.csv"].cause == "netmond does not run"
    assert found["features.meter"].cause == "netmond does not run, and could not do it: see btf"
    assert "CONFIG_DEBUG_INFO_BTF" in found["features.meter"].remedy


def test_features_of_a_silent_netmond() -> None:
    """What nobody tells is unknown, not off."""
    patient = Patient()
    patient.replies["GetId"] = NO_BUS

    assert {patient.examine()[f"features.{name}"].word for name in NEEDS} == {"unknown"}


def test_features_are_known() -> None:
    """Those of the recorded netmond are those that a stopped one has; needs are checks."""
    found = Patient().examine()
    checks = {name.partition(".")[2] for name in found if not name.startswith(("features.", "interfaces."))}

    assert set(FEATURES) == set(NEEDS)
    assert {need for needs in NEEDS.values() for need in needs} <= checks


# -- what cannot be looked at ------------------------------------------------------------------------------


def test_nothing_at_all() -> None:
    """Where nothing can be read, run or asked every check is there, and none is well by a guess."""
    patient = Patient()
    patient.uid = 1000
    patient.files = dict.fromkeys(patient.files, PermissionError(13, "Permission denied"))
    patient.programs = dict.fromkeys(("ip", "journalctl"))
    patient.replies = dict.fromkeys(("GetId", "Describe"), NOT_RUNNING)

    found = patient.examine()

    assert set(found) >= {name for name in Patient().examine() if not name.startswith("interfaces.")}
    fine = {name for name, each in found.items() if each.severity is FINE}
    assert fine == {"kernel.kernel", "kernel.libpcap", "service.memory-lock", "surroundings.clock"}
