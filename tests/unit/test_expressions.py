"""Filters in tcpdump's syntax: what libpcap makes of them, what is refused, and who does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from netmond.errors import InvalidArgs, LimitExceeded, Unavailable
from netmond.frames import expressions
from netmond.frames.expressions import (
    ETHERNET,
    NOTHING,
    RAW,
    Filter,
    Instruction,
    compile_filter,
    translate,
)
from netmond.frames.filter_source import HEAD, function, source

ROOT = Path(__file__).parents[2]
_CONFINED = (
    "from netmond.frames import expressions as e; e._confine(); print(open('/proc/self/status').read())"
)


def listed(text: str, data_link: str = "EN10MB") -> list[tuple[int, ...]]:
    """The program as tcpdump prints it; the first line is how long it is."""
    said = subprocess.run(
        ["tcpdump", "-y", data_link, "-ddd", text], check=True, capture_output=True, text=True
    )
    return [tuple(map(int, line.split())) for line in said.stdout.splitlines()[1:]]


class TestTranslation:
    @pytest.mark.parametrize("text", ["tcp port 80", "host 192.0.2.7 or ip6", "vlan 5 and udp", ""])
    def test_as_tcpdump(self, text: str) -> None:
        """The instructions are those of `tcpdump -ddd`."""
        assert list(compile_filter(text, [ETHERNET])[ETHERNET].plain) == listed(text)
        if "vlan" not in text:
            assert list(compile_filter(text, [RAW])[RAW].plain) == listed(text, "RAW")

    def test_behind_a_tag(self) -> None:
        """Frames with a tag are judged by what is behind it, unless the filter speaks of tags itself."""
        plain = compile_filter("udp", [ETHERNET, RAW])

        assert list(plain[ETHERNET].tagged or ()) == listed("vlan and (udp)")
        assert plain[RAW].tagged is None
        for text in ("vlan", "udp or vlan 5", "(vlan)", "not vlan", ""):
            assert compile_filter(text, [ETHERNET])[ETHERNET].tagged is None
        for text in ("host vlan.invalid", "ether host 02:00:00:00:00:01"):
            assert expressions._MENTIONS_TAG.search(text) is None

    def test_what_no_tagged_frame_can_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing matches then, and that is no error; anything else is one."""
        plain = (Instruction(0x06, 0, 0, 1),)
        monkeypatch.setattr(expressions, "translate", lambda _: [plain, "expression rejects all packets"])
        assert compile_filter("tcp", [ETHERNET])[ETHERNET] == Filter(plain, NOTHING)

        monkeypatch.setattr(expressions, "translate", lambda _: [plain, "too deep"])
        with pytest.raises(InvalidArgs, match="filter: too deep, in frames with a VLAN tag"):
            compile_filter("tcp", [ETHERNET])

    def test_about_ethernet(self) -> None:
        """It matches nothing on an interface without it, and is an error if there is no other."""
        text = "ether host 02:00:00:00:00:01"

        both = compile_filter(text, [RAW, ETHERNET])
        assert both[RAW] == Filter(NOTHING)
        assert len(both[ETHERNET].plain) > 1
        with pytest.raises(InvalidArgs, match="ethernet"):
            compile_filter(text, [RAW])

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("tcp port", "filter: can't parse filter expression: syntax error"),
            ("tcp) or (udp", "filter: can't parse filter expression: syntax error"),
            ("tcp and udp", "filter: expression rejects all packets"),
            ("port nosuchservice", "filter: unknown port 'nosuchservice'"),
            # no name: a name server is not asked, who might take its time
            ("host host..invalid", "filter: unknown host 'host..invalid'; give its address"),
            ("net 10.0.0.0/40", "filter: mask length must be <= 32"),
            ("ip broadcast", "filter: netmask not known, so 'ip broadcast' not supported"),
            ("gateway 10.0.0.1", "filter: 'gateway' requires a name"),
            ("ip[0] / 0 = 1", "filter: division by zero"),
            ("tcp\0", "the filter has a NUL in it"),
        ],
    )
    def test_errors(self, text: str, said: str) -> None:
        """In one line, as libpcap says it."""
        with pytest.raises(InvalidArgs) as raised:
            compile_filter(text, [ETHERNET])

        assert str(raised.value) == said


class TestChild:
    def test_has_no_capability(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of those that could be handed down it has none from the start, and then none at all."""
        script = tmp_path / "python"
        script.write_text(
            f'#!/bin/sh\ngrep ^CapAmb /proc/self/status >{tmp_path}/start\nexec {sys.executable} "$@"\n'
        )
        script.chmod(0o755)
        confined = subprocess.run(
            [sys.executable, "-c", _CONFINED], cwd=ROOT, check=True, capture_output=True, text=True
        )
        status = dict(line.split(":\t", 1) for line in confined.stdout.splitlines() if "Cap" in line)
        monkeypatch.setattr(sys, "executable", str(script))

        assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Amb")} == {"0000000000000000"}
        assert not isinstance(translate([(ETHERNET, "tcp")])[0], str)
        assert (tmp_path / "start").read_text() == "CapAmb:\t0000000000000000\n"

    def test_that_cannot_give_them_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It reads nothing then."""
        monkeypatch.setattr(sys, "executable", "/bin/false")

        with pytest.raises(Unavailable, match="filters are unavailable: no reason given"):
            translate([(ETHERNET, "tcp")])

    def test_that_dies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What kills the parser is the text's fault."""
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\nkill -SEGV $$\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

        with pytest.raises(InvalidArgs, match=r"could not cope with it \(SIGSEGV\)"):
            translate([(ETHERNET, "tcp")])

    def test_that_hangs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a name service may."""
        script = tmp_path / "python"
        script.write_text("#!/bin/sh\nexec sleep 100\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        monkeypatch.setattr(expressions, "_TIMEOUT", 0.1)

        with pytest.raises(InvalidArgs, match="names may be the reason"):
            translate([(ETHERNET, "tcp")])

    def test_too_much_for_libpcap(self) -> None:
        """It takes memory and time that grow with the square of a list."""
        text = " or ".join(f"port {7 * port}" for port in range(1, 1200))

        with pytest.raises(InvalidArgs, match=r"filter: libpcap .*; a shorter one may do"):
            compile_filter(text, [RAW])


class TestSource:
    def test_everything(self) -> None:
        """Without a filter."""
        text = source({})

        assert text.count("return 0x1;") == 2
        assert "filter_ethernet(FILTER_ARGUMENTS)" in text
        assert "filter_raw(FILTER_ARGUMENTS)" in text

    def test_where_nothing_is_captured(self) -> None:
        """A link type without a filter beside one with: nothing matches."""
        text = source({ETHERNET: Filter(NOTHING)})

        assert text.count("return 0x0;") == 2

    def test_head(self) -> None:
        """Both sides have the same idea of it."""
        assert f"#define FILTER_HEAD {HEAD} " in (ROOT / "bpf/filter.h").read_text()

    @pytest.mark.parametrize("text", ["ip6 protochain 6", "tcp and ip protochain 17"])
    def test_loops(self, text: str) -> None:
        """They are refused: nothing that runs in the kernel has any."""
        filters = compile_filter(text, [ETHERNET])

        with pytest.raises(InvalidArgs, match="protochain"):
            source(filters)

    @pytest.mark.parametrize("text", ["inbound", "outbound", "ifindex 2"])
    def test_what_is_no_part_of_frames(self, text: str) -> None:
        filters = compile_filter(text, [ETHERNET])

        with pytest.raises(InvalidArgs, match="options for direction and interface"):
            source(filters)

    @pytest.mark.parametrize(
        "step",
        [
            Instruction(0x0C | 0xB0, 0, 0, 1),  # an operation
            Instruction(0x05 | 0x50, 0, 0, 1),  # a comparison
            Instruction(0x38, 0, 0, 1),  # a size
            Instruction(0xE0, 0, 0, 1),  # a mode
            Instruction(0x02, 0, 0, 16),  # a word of memory
            Instruction(0x05, 0, 0, 1),  # a jump behind the end
            Instruction(0x15, 1, 0, 0),
            Instruction(0x05, 0, 0, 0xFFFFFFFF),  # a jump back
        ],
    )
    def test_unknown_instructions(self, step: Instruction) -> None:
        with pytest.raises(InvalidArgs, match="filter:"):
            function("f", (step, Instruction(0x06, 0, 0, 1)))

    def test_no_end(self) -> None:
        for program in ((), (Instruction(0x07, 0, 0, 0),)):
            with pytest.raises(InvalidArgs, match="without an end"):
                function("f", program)

    def test_reads_elsewhere_count_more(self) -> None:
        """They are more of the kernel's instructions."""
        read = Instruction(0x50, 0, 0, 0)
        program = (*[read] * 1100, Instruction(0x06, 0, 0, 1))

        with pytest.raises(LimitExceeded, match="8801 instructions, 8192 are allowed"):
            source({RAW: Filter(program)})
