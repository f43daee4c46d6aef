"""netmonctl doctor as a command: its text, its JSON, its exit status; and the real machine it looks at."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netmonctl.__main__ import main
from netmonctl.calls import Call
from netmonctl.client import Client
from netmonctl.doctor import machine
from netmonctl.doctor.examination import Section, examine
from netmonctl.doctor.finding import Finding, Severity, failed, ok, unknown, warning
from netmonctl.doctor.machine import Machine
from netmonctl.doctor.report import page
from netmonctl.errors import CtlError, ExitCode
from netmonctl.output import Output
from netmonctl.render import Style
from tests.unit.patient import Patient

ROOT = Path(__file__).parents[2]

SECTIONS = [
    Section(
        title="Features",
        findings=(
            Finding(name="meter", severity=Severity.FINE, state="on", cause="", needs=("btf", "jit")),
            Finding(name="polkit", severity=Severity.WARNING, state="off", cause="not there"),
        ),
    ),
    Section(title="Empty", findings=()),
    Section(
        title="Kernel",
        findings=(
            ok("btf", "there", "/sys/kernel/btf/vmlinux"),
            warning("jit", "off", "sysctl -w net.core.bpf_jit_enable=1", ("a detail",)),
            unknown("lockdown", "only root may look", "sudo netmonctl doctor"),
            failed("x\x1b[2J", "so much is wrong with it that it takes a line and a half to say", "do it"),
        ),
    ),
]


class Nobody:
    """A transport to no bus at all."""

    def call(self, call: Call) -> list[Any]:
        raise CtlError("cannot reach the system bus (nobody there); see: man", ExitCode.NOT_RUNNING)

    def close(self) -> None:
        pass


def doctor(monkeypatch: pytest.MonkeyPatch, patient: Patient, *words: str) -> tuple[int, str]:
    """Exit status and standard output of netmonctl doctor on a patient."""
    monkeypatch.setattr(machine, "Machine", lambda client: patient)
    out = Output(stdout=io.StringIO(), stderr=io.StringIO(), stdin=io.StringIO())
    code = main(["doctor", *words], lambda: Client(Nobody()), out)
    assert isinstance(out.stdout, io.StringIO)
    return code, out.stdout.getvalue()


def test_text() -> None:
    """A line for each, aligned; remedies below; what comes from outside cannot steer the terminal."""
    assert page(SECTIONS, Style(), verbose=False, legend=True) == [
        "Features",
        "● meter     on",
        "○ polkit    off      not there",
        "",
        "Kernel",
        "● btf       ok       there",
        "● jit       warning  off",
        "                     remedy: sysctl -w net.core.bpf_jit_enable=1",
        "○ lockdown  unknown  only root may look",
        "                     remedy: sudo netmonctl doctor",
        "● x\\x1b[2J  failed   so much is wrong with it that it takes a line and a half to say",
        "                     remedy: do it",
        "",
        "6 checks: 2 fine, 2 warnings, 1 unknown, 1 failed.",
    ]


def test_text_verbose_and_narrow() -> None:
    """Details below each; long lines are broken between words, but never what is to be copied."""
    lines = page(SECTIONS, Style(width=54, unicode=False), verbose=True, legend=False)

    assert lines == [
        "* meter     on",
        "                     needs btf, jit",
        "o polkit    off      not there",
        "* btf       ok       there",
        "                     /sys/kernel/btf/vmlinux",
        "* jit       warning  off",
        "                     a detail",
        "                     remedy: sysctl -w net.core.bpf_jit_enable=1",
        "o lockdown  unknown  only root may look",
        "                     remedy: sudo netmonctl doctor",
        "* x\\x1b[2J  failed   so much is wrong with it that it",
        "                     takes a line and a half to say",
        "                     remedy: do it",
    ]


def test_colours() -> None:
    """Dots are green, yellow, red; what is unknown, and what is off as it shall be, have none."""
    unwanted = Finding(name="meter", severity=Severity.FINE, state="off", cause="switched off")
    sections = [*SECTIONS, Section(title="More", findings=(unwanted,))]

    lines = page(sections, Style(colour=True), verbose=False, legend=False)

    dots = [line.partition("m●")[0][-2:] for line in lines if "●" in line]
    assert dots == ["32", "32", "33", "31"]
    assert [line[:10] for line in lines if "○" in line] == ["\x1b[33m○\x1b[0m", "○ lockdown", "○ meter   "]


def test_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 if all is well or there is something to remark; 1 if something failed."""
    well, remarkable, ill = Patient(), Patient(), Patient()
    remarkable.remove("/var/log/journal")
    remarkable.files["/proc/sys/net/core/bpf_jit_enable"] = "0"
    ill.remove("/sys/kernel/btf/vmlinux")

    assert doctor(monkeypatch, well)[0] == 0
    assert doctor(monkeypatch, remarkable)[0] == 0
    assert doctor(monkeypatch, ill)[0] == 1


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the text tells, by key; the exit status is the same."""
    patient = Patient()
    patient.remove("/sys/kernel/btf/vmlinux")

    code, text = doctor(monkeypatch, patient, "--json=short")

    found = json.loads(text)
    checks = {(each["section"], each["name"]): each for each in found["checks"]}
    assert (code, found["well"]) == (1, False)
    assert found["counts"] == {"fine": len(checks) - 2, "warning": 0, "unknown": 1, "failed": 1}
    assert checks["kernel", "btf"] == {
        "section": "kernel",
        "name": "btf",
        "state": "failed",
        "severity": "failed",
        "cause": "the kernel has no type information: there is no /sys/kernel/btf/vmlinux",
        "remedy": "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are",
        "details": [],
        "needs": [],
    }
    assert "btf" in checks["features", "meter"]["needs"]
    assert checks["features", "meter"]["state"] == "on"


def test_without_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the findings."""
    _, text = doctor(monkeypatch, Patient(), "--no-legend")

    assert len(text.splitlines()) == len(Patient().examine())


def test_start_is_quick() -> None:
    """Other commands do not load what only this one needs."""
    code = "import sys, netmonctl.__main__; print(sorted(n for n in sys.modules if 'netmonctl.doctor' in n))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "['netmonctl.doctor', 'netmonctl.doctor.command']\n"


# -- the real machine ---------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Machine:
    return Machine(Client(Nobody()))


def test_this_machine(host: Machine) -> None:
    """Whatever machine this is, whoever looks: every check ends with a word and a cause."""
    found = [each for section in examine(host) for each in section.findings]

    assert len(found) > 25
    assert all(each.word and each.cause for each in found)
    (bus,) = (each for each in found if (each.name, each.severity) == ("bus", Severity.FAILED))
    assert bus.cause == "cannot reach the system bus (nobody there)"


def test_files(host: Machine, tmp_path: Path) -> None:
    """What is there is read; what is not is FileNotFoundError, or just not there."""
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "link").symlink_to("/sys/bus/virtio/drivers/virtio_net")

    assert host.read(f"{tmp_path}/file") == b"text\n"
    assert host.points_to(f"{tmp_path}/link") == "virtio_net"
    assert host.names(str(tmp_path)) == ["file", "link"]
    assert host.exists(str(tmp_path))
    assert not host.exists(f"{tmp_path}/other")
    assert not host.exists(f"{tmp_path}/file/below")
    for look in (host.read, host.names):
        with pytest.raises(FileNotFoundError):
            look(f"{tmp_path}/other")


def test_libraries(host: Machine) -> None:
    """One that the dynamic linker finds, and one that nobody has."""
    assert host.loads("libc.so.6")
    assert not host.loads("libnosuchlibrary.so.7")


def test_space(host: Machine, tmp_path: Path) -> None:
    """As df has it."""
    done = subprocess.run(
        ["df", "--block-size=1", "--output=size,itotal", str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    size, inodes = done.stdout.splitlines()[1].split()

    found = host.space(str(tmp_path))

    assert (found.size, found.inodes) == (int(size), int(inodes.replace("-", "0")))
    assert 0 <= found.free <= found.size
    assert not found.read_only


def test_clock(host: Machine) -> None:
    """The kernel answers, and what it answers is possible: its error grows to 16 s at most."""
    found = host.clock()

    assert 0 <= found.max_error <= 16.1
    assert found.synchronised <= (found.max_error < 16)


def test_programs(host: Machine) -> None:
    """Output, standard error and exit status; in the C locale; a program that is not there is an error."""
    ran = host.run("sh", "-c", "echo $LC_ALL; echo no >&2; exit 3")

    assert (ran.code, ran.out, ran.err, ran.complaint) == (3, "C.UTF-8\n", "no\n", "no")
    assert replace(ran, err="").complaint == "C.UTF-8"
    assert replace(ran, err="", out="").complaint == "exit status 3"
    with pytest.raises(FileNotFoundError):
        host.run("no-such-program-anywhere")


def test_offload(host: Machine) -> None:
    """An interface without the offload says so, one that is not there is an error."""
    assert host.merges_on_receive("lo") is False
    with pytest.raises(OSError, match="No such device"):
        host.merges_on_receive("no-such-device")


def test_who_and_where(host: Machine) -> None:
    """As the system tells it."""
    assert (host.uid, host.release) == (os.geteuid(), os.uname().release)
