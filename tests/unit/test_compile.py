"""The short-lived compiler: what it hands over, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.errors import KernelError
from netmond.kernel import compiler
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.programs import METER_OFFSETS
from netmond.kernel.unit import Extra, Program, Unit

ROOT = Path(__file__).parents[2]
UNIT = Unit(
    source="sockets.c",
    defines={"SLOTS": 16},
    programs=(Program(name="first", kind="CGROUP_SKB", attach_type=1), Program(name="second", kind="XDP")),
    maps=("slots", "flows", "peers"),
    offsets=METER_OFFSETS,
)

#: In the child: the BTF is that of an old kernel, and `bcc` is what a test puts beside.
_SITE = """
import os, sys, types

class Btf:
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def has_function(self, name): return name == "bpf_ktime_get_coarse_ns"
    def offset(self, structure, member):
        from netmond.errors import KernelError
        if "OFFSET" in os.environ: return int(os.environ["OFFSET"])
        raise KernelError(f"the kernel's BTF has no {structure}.{member}")

sys.modules["netmond.kernel.btf"] = module = types.ModuleType("btf")
module.Btf = Btf
"""

#: A bcc whose descriptors are files that hold their own name.
_BCC = """
import json, os, types

class BPF:
    CGROUP_SKB, XDP = "skb", "xdp"

    def __init__(self, text, cflags):
        flags = [flag for flag in cflags if flag.startswith("-D")]
        refused = set(os.environ.get("REFUSED", "").split()) & set(flags)
        if refused:
            raise Exception(f"no {min(refused)}, says the kernel")
        self.about = {"text": text[:100], "flags": flags}
        self.module, self.maps = self, {}

    def file(self, name, **more):
        descriptor = os.memfd_create(name)
        os.pwrite(descriptor, json.dumps({"name": name, **more, **self.about}).encode(), 0)
        return descriptor

    def descriptor(self, name):
        return self.maps.setdefault(name, self.file(name))

    def load_func(self, name, kind, device, attach_type):
        if name == "refused":
            raise Exception("Failed to load BPF program b'refused': Invalid argument")
        if name == "unsafe":
            os.write(2, os.environb[b"SAID"])
            raise Exception("Failed to load BPF program b'unsafe': Permission denied")
        return types.SimpleNamespace(fd=self.file(name, kind=kind, attach=attach_type))

lib = types.SimpleNamespace(
    bpf_table_fd=lambda module, name: -1 if name == b"absent" else module.descriptor(name.decode())
)
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory from which the child takes its modules first."""
    (tmp_path / "sitecustomize.py").write_text(_SITE)
    (tmp_path / "bcc.py").write_text(_BCC)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def content(descriptor: int) -> str:
    return os.pread(descriptor, 4096, 0).decode()


def beginning(source: str, before: str = "") -> str:
    """How the fake says what it was given to compile."""
    return json.dumps((before + (ROOT / "bpf" / source).read_text())[:100])


@pytest.fixture
def loaded(child: Path) -> Iterator[Loaded]:
    result = Compilation(UNIT).result()
    yield result
    result.close()


def test_descriptors_arrive(loaded: Loaded) -> None:
    """Each program and map under its own name, loaded as asked; they live on when the child has ended."""
    assert loaded.programs.keys() == {"first", "second"}
    assert loaded.maps.keys() == {"slots", "flows", "peers"}
    for name, descriptor in (*loaded.programs.items(), *loaded.maps.items()):
        assert f'"name": "{name}"' in content(descriptor)
        assert not os.get_inheritable(descriptor)
    assert '"kind": "skb", "attach": 1' in content(loaded.programs["first"])
    assert '"kind": "xdp", "attach": 0' in content(loaded.programs["second"])


def test_what_is_compiled(loaded: Loaded) -> None:
    """The file that was named, with the sizes asked for and what the kernel offers."""
    about = content(loaded.maps["slots"])

    assert beginning("sockets.c") in about
    assert '"-DSLOTS=16"' in about
    assert '"-DCOARSE_CLOCK=1"' in about
    assert '"-DHIDDEN_ANSWERS=1"' in about
    assert "OFFSET" not in about


def test_what_had_to_be_left_out(loaded: Loaded) -> None:
    """A kernel whose types lack something costs a detail, with cause, and not the meter."""
    assert (
        "users of user namespaces appear under their inner ids: the kernel's BTF has no sock.sk_uid"
        in loaded.notes
    )
    assert loaded.notes[0].endswith("that takes Linux 6.6")


def test_a_program_that_the_kernel_refuses(child: Path) -> None:
    """One that can be done without costs what it says; any other costs the unit."""
    first, refused = Program(name="first", kind="XDP"), Program(name="refused", kind="XDP", loss="no names")
    loaded = Compilation(replace(UNIT, programs=(refused, first))).result()

    assert loaded.programs.keys() == {"first"}
    assert '"name": "first"' in content(loaded.programs["first"])
    assert '"name": "peers"' in content(loaded.maps["peers"])
    assert "no names: Failed to load BPF program b'refused': Invalid argument" in loaded.notes
    loaded.close()

    with pytest.raises(KernelError, match="Invalid argument"):
        Compilation(replace(UNIT, programs=(first, replace(refused, loss="")))).result()


#: As BCC 0.26 writes it on Linux 6.18, with a hint of its own.
_VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
0: (61) r1 = *(u32 *)(r1 +0)          ; R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))
1: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

HINT: The invalid mem access happens if you try to dereference memory without first using bpf_probe_read().

"""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (_VERIFIER, "the kernel's verifier refuses unsafe: R1 invalid mem access 'scalar'"),
        (
            _VERIFIER.replace("Permission denied", "Argument list too long").replace(
                "R1 invalid", "R1\n\nlast"
            ),
            "the kernel's verifier refuses unsafe: last mem access 'scalar'",
        ),
        ("bpf: Failed to load program: Permission denied\n\n", "not permitted: netmond needs CAP_BPF"),
        ("", "not permitted: netmond needs CAP_BPF"),
    ],
    ids=["as unsafe", "as too large", "as forbidden, by a security module", "in silence"],
)
def test_why_a_kernel_refuses(child: Path, monkeypatch: pytest.MonkeyPatch, said: str, why: str) -> None:
    """The verifier's own reason if it had one: its EACCES is no want of a capability. The reason for another
    program, refused before, is not taken for it."""
    monkeypatch.setenv("SAID", said)
    unsafe = Program(name="unsafe", kind="XDP", loss="no safety")
    refused = Program(name="refused", kind="XDP", loss="no names")
    loaded = Compilation(replace(UNIT, programs=(unsafe, refused))).result()
    loaded.close()

    notes = dict(note.split(": ", 1) for note in loaded.notes)
    assert notes["no safety"].startswith(why)
    assert notes["no names"] == "Failed to load BPF program b'refused': Invalid argument"


def test_a_preamble(child: Path) -> None:
    """It comes before the file, also one larger than a pipe or a socket takes at once."""
    preamble = "static int more;" + " " * (1 << 20)
    loaded = Compilation(replace(UNIT, preamble=preamble)).result()

    assert beginning("sockets.c", preamble) in content(loaded.maps["slots"])
    loaded.close()


def test_a_map_that_is_there_already(child: Path) -> None:
    """It takes the place of the file's own, under any number; the caller's descriptor stays open."""
    theirs = os.memfd_create("theirs")
    os.pwrite(theirs, b"theirs", 0)
    loaded = Compilation(replace(UNIT, shared={"flows": theirs})).result()

    assert content(loaded.maps["flows"]) == content(theirs) == "theirs"
    assert '"name": "slots"' in content(loaded.maps["slots"])
    loaded.close()
    with pytest.raises(KernelError, match="no map absent"):
        Compilation(replace(UNIT, shared={"absent": theirs})).result()
    os.close(theirs)


EXTRA = Extra(macro="MORE", maps=("more",), loss="no more")


def test_an_extra(child: Path) -> None:
    """A part that can be done without is compiled in, and its maps are there."""
    loaded = Compilation(replace(UNIT, extra=EXTRA)).result()

    assert loaded.maps.keys() == {"slots", "flows", "peers", "more"}
    assert '"name": "more"' in content(loaded.maps["more"])
    assert '"-DMORE=1"' in content(loaded.maps["slots"])
    loaded.close()


@pytest.mark.parametrize(
    ("refused", "more", "offsets", "lost"),
    [
        ("-DMORE=1", False, True, ["no more"]),
        ("-DSOCK_UID_OFFSET=8", True, False, ["users of user namespaces appear under their inner ids"]),
        (
            "-DMORE=1 -DSOCK_UID_OFFSET=8",
            False,
            False,
            ["no more", "users of user namespaces appear under their inner ids"],
        ),
    ],
    ids=["the extra", "the kernel's structures", "both"],
)
def test_what_a_kernel_refuses_is_left_out(
    child: Path, monkeypatch: pytest.MonkeyPatch, refused: str, more: bool, offsets: bool, lost: list[str]
) -> None:
    """As little as possible is done without, each loss is told with the cause, and the rest works."""
    monkeypatch.setenv("OFFSET", "8")
    monkeypatch.setenv("REFUSED", refused)

    loaded = Compilation(replace(UNIT, extra=EXTRA)).result()

    assert ("more" in loaded.maps) == more
    assert ("-DSOCK_UID_OFFSET=8" in content(loaded.maps["slots"])) == offsets
    told = [note for note in loaded.notes if "says the kernel" in note]
    assert [note.split(":")[0] for note in told][: len(lost)] == lost
    loaded.close()


def test_two_at_a_time(child: Path) -> None:
    """Two compilations run side by side and do not get each other's answers."""
    other = Unit(source="interfaces.c", defines={}, programs=(), maps=("ports",))
    first, second = Compilation(UNIT), Compilation(other)

    for result, source in ((second.result(), "interfaces.c"), (first.result(), "sockets.c")):
        assert beginning(source) in content(next(iter(result.maps.values())))
        result.close()


@pytest.mark.parametrize(
    ("bcc", "said"),
    [
        (
            "import sys; sys.modules['bcc'] = None; import bcc",
            r"has no module bcc: install the package python3-bpfcc",
        ),
        (
            "class BPF:\n    def __init__(self, **_): raise Exception('Failed: Operation not permitted')",
            r"CAP_BPF",
        ),
        ("import os; os._exit(7)", r"the compiler ended with 7"),
        (
            "import os; os.write(2, b'one\\nLLVM ERROR: out of memory\\n'); os._exit(1)",
            r"LLVM ERROR",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"the compiler ended with -9"),
    ],
    ids=["no bcc", "not permitted", "silent", "last words", "killed"],
)
def test_what_goes_wrong(child: Path, bcc: str, said: str) -> None:
    """However the child fails it is one line that names the file and the cause."""
    (child / "bcc.py").write_text(bcc)

    with pytest.raises(KernelError, match=rf"^cannot load sockets\.c: .*{said}") as raised:
        Compilation(UNIT).result()

    assert "\n" not in str(raised.value)


def test_a_compiler_that_hangs(child: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended after a while, and the daemon goes on without."""
    (child / "bcc.py").write_text("import signal; signal.pause()")
    monkeypatch.setattr("netmond.kernel.compile._TIMEOUT", 0.05)

    with pytest.raises(
        KernelError, match=r"cannot load sockets\.c: the compiler did not answer \(timed out\)"
    ):
        Compilation(UNIT).result()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Exception("Failed to load BPF program\nlong log"), "Failed to load BPF program"),
        (PermissionError(1, "Operation not permitted"), "not permitted: netmond needs CAP_BPF"),
        (Exception("Need super-user: Permission denied"), "not permitted: netmond needs CAP_BPF"),
        (ModuleNotFoundError("No module named 'bcc'", name="bcc"), "install the package python3-bpfcc"),
        (ModuleNotFoundError("No module named 'other'", name="other"), "No module named 'other'"),
        (KeyError(), "KeyError"),
    ],
)
def test_describe(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    """The first line of an error, or the remedy if there is a usual one; never empty."""
    monkeypatch.setattr(compiler, "_may_load", lambda: True)
    described = compiler._describe(error)

    assert said in described
    assert "\n" not in described


def test_describe_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """bcc often says nothing useful then: the lack itself is the cause."""
    monkeypatch.setattr(compiler, "_may_load", lambda: False)

    assert "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in compiler._describe(Exception("Failed to compile"))


_AS_NOBODY = """
from netmond.errors import KernelError
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import socket_unit

try:
    Compilation(socket_unit(slots=16, peers=16)).result()
except KernelError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")
@pytest.mark.skipif(
    importlib.util.find_spec("bcc") is None, reason="needs bcc (Debian package python3-bpfcc)"
)
def test_a_user_without_capabilities() -> None:
    """The real compiler, run by nobody: one line that names the capabilities."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # nobody may not look into pytest's own directories, or the tree's
        for name in ("netmond", "bpf"):
            shutil.copytree(ROOT / name, Path(directory, name), ignore=shutil.ignore_patterns("__pycache__"))
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY],
            cwd=directory,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
            user=65534,
            group=65534,
            extra_groups=(),
            capture_output=True,
            text=True,
        )

    assert done.stderr == ""
    needs = "netmond needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or root)"
    assert done.stdout == f"cannot load sockets.c: not permitted: {needs}\n"
