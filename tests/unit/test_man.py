"""The man pages: they build, formatters have nothing to say, and they know all that the code knows."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

import netmonctl.__main__ as netmonctl
from netmonctl.arguments import arrange
from netmonctl.doctor.examination import SECTIONS
from netmonctl.errors import ExitCode
from netmonctl.options import OPTIONS
from netmond.config import argument_parser, load, read_options
from netmond.config_table import SETTINGS
from netmond.export import metrics, xtrace
from netmond.export.options import OPTIONS as EXPORTED
from netmond.kernel.wire import INTERFACE_LOSSES, SOCKET_LOSSES
from netmond.outputs import csv, journal
from netmond.outputs.messages import MessageId

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "packaging" / "man" / "build.py"
PAGES = ("netmond.8", "netmonctl.1", "netmond-metrics.5", "netmond.toml.5", "org.netmond1.5")

INTERFACES = ("org.netmond1.Manager", "org.netmond1.Target", "org.freedesktop.LogControl1")

#: Prints what the build imported that comes with neither Python nor the packages it may need.
IMPORTED = """
import runpy, sys
sys.argv = sys.argv[1:]
try: runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end: assert not end.code
print(*{"bcc", "dbus_next", "systemd", "argcomplete"} & sys.modules.keys())
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as roff and as a person reads it, in very long lines."""

    path: Path
    text: str

    def section(self, title: str) -> str:
        """The text below a heading."""
        match = re.search(rf"^{re.escape(title)}$(.*?)(?=^\S|\Z)", self.text, re.MULTILINE | re.DOTALL)
        assert match is not None, title
        return match[1]

    def entry(self, term: str, below: str) -> str:
        """The text that explains a term of a section; the indented lines below it."""
        lines = self.section(below).splitlines()
        (start,) = (number for number, line in enumerate(lines) if f"{line.strip()} ".startswith(f"{term} "))
        margin = len(lines[start]) - len(lines[start].lstrip())
        text = lines[start].strip().removeprefix(term)
        for line in lines[start + 1 :]:
            if line and len(line) - len(line.lstrip()) <= margin:
                break
            text += f"\n{line.strip()}"
        return text

    def examples(self) -> Iterator[str]:
        """The literal blocks, as they were written."""
        for block in re.findall(r"^\.EX\n(.*?)^\.EE$", self.path.read_text(), re.MULTILINE | re.DOTALL):
            for roff, plain in ((r"\&", ""), (r"\-", "-"), (r"\(aq", "'"), (r"\(dq", '"'), (r"\(ga", "`"),
                                (r"\e", "\\")):  # fmt: skip
                block = block.replace(roff, plain)
            yield block

    def commands(self, program: str) -> Iterator[str]:
        """The command lines of the examples that run `program`, continuation lines joined."""
        for example in self.examples():
            for line in example.replace("\\\n", "").splitlines():
                if match := re.match(rf"[$#] ({program}\b[^|<>]*)", line):
                    yield match[1]


def build(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", BUILD, directory],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Page]:
    pytest.importorskip("docutils", reason="needs docutils (Debian package python3-docutils)")
    need("man")
    directory = tmp_path_factory.mktemp("man")
    done = build(directory)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return {name: Page(directory / name, formatted(directory / name)) for name in PAGES}


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"needs {tool}")


def formatted(path: Path) -> str:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", path], capture_output=True, text=True, check=True,
        env=os.environ | {"MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "MANROFFOPT": "-c"},
    )  # fmt: skip
    assert done.stderr == ""
    return re.sub(".\b", "", done.stdout)


def test_all_are_built(pages: Mapping[str, Page]) -> None:
    """All pages, and nothing else."""
    directory = pages["netmond.8"].path.parent

    assert sorted(each.name for each in directory.iterdir()) == sorted(PAGES)


def test_reproducible(pages: Mapping[str, Page], tmp_path: Path) -> None:
    """The same source and SOURCE_DATE_EPOCH give the same bytes, wherever and whenever."""
    first, second = tmp_path / "a", tmp_path / "b"
    build(first, SOURCE_DATE_EPOCH="1700000000", TZ="UTC")
    build(second, SOURCE_DATE_EPOCH="1700000000", TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")

    for name in PAGES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert '"2023-11-14"' in (first / name).read_text()


def test_builds_without_what_runs(pages: Mapping[str, Page], tmp_path: Path) -> None:
    """A package build has neither BCC nor D-Bus; the build must not ask for them."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORTED, BUILD, tmp_path], capture_output=True, text=True, check=True
    )

    assert done.stdout == "\n"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "command",
    [
        ("groff", "-ww", "-man", "-Kutf8", "-Tutf8", "-rLL=72n"),
        ("mandoc", "-T", "lint", "-W", "warning"),
    ],
    ids=["groff", "mandoc"],
)
def test_formatters_have_nothing_to_say(
    pages: Mapping[str, Page], name: str, command: tuple[str, ...]
) -> None:
    """No warning of either formatter."""
    need(command[0])
    done = subprocess.run([*command, pages[name].path], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    if command[0] == "mandoc":
        assert done.stdout == ""


@pytest.mark.parametrize("name", PAGES)
def test_sections(pages: Mapping[str, Page], name: str) -> None:
    """Headings stand once, and those that are always there are."""
    headings = re.findall(r"^([A-Z[].*)$", pages[name].text, re.MULTILINE)[1:]

    assert len(set(headings)) == len(headings)
    assert {"NAME", "FILES", "EXAMPLES", "SEE ALSO"} < set(headings)


@pytest.mark.parametrize("name", PAGES)
def test_whatis(pages: Mapping[str, Page], name: str) -> None:
    """apropos(1) finds it: one line that names the page and says what it is."""
    line = pages[name].section("NAME").strip()

    assert line.startswith(f"{name.rpartition('.')[0]} - ")


def options(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        for flag in action.option_strings:
            yield flag, action.help or ""


def test_options_of_the_daemon(pages: Mapping[str, Page]) -> None:
    """Every flag of netmond, explained by its help."""
    text = pages["netmond.8"].section("OPTIONS")

    for flag, meaning in options(argument_parser()):
        assert re.search(rf"^ +(-\w, )?{flag}\b", text, re.MULTILINE) or f"{flag}," in text, flag
        assert meaning[1:] in text


def test_options_of_the_client(pages: Mapping[str, Page]) -> None:
    """Every option of netmonctl is explained once; every command names those that are its own."""
    page = pages["netmonctl.1"]
    text = page.section("OPTIONS")

    for option in OPTIONS.values():
        assert all(re.search(rf"^ .*{flag}\b", text, re.MULTILINE) for flag in option.flags)
        assert option.how["help"][1:] in text
    assert "--user, --unit, --pid, --protocol, --port, --peer" in page.section("COMMANDS")


def test_commands(pages: Mapping[str, Page]) -> None:
    """Every verb and sub-verb."""
    text = pages["netmonctl.1"].section("COMMANDS")

    for verb, below in netmonctl.parsers()[1].verbs.items():
        for each in [f"{verb} {name}" for name in below] or [verb]:
            assert re.search(rf"^ {{7}}{each}( [\[A-Z]|  |$)", text, re.MULTILINE), each


def test_doctor(pages: Mapping[str, Page]) -> None:
    """Every check of netmonctl doctor."""
    names = re.findall(r"[\w-]+", pages["netmonctl.1"].section("DOCTOR"))

    assert {name for checks in SECTIONS.values() for name in checks} <= set(names)


def test_exit_codes(pages: Mapping[str, Page]) -> None:
    """Every exit code of netmonctl."""
    for code in ExitCode:
        assert pages["netmonctl.1"].entry(str(code.value), "EXIT STATUS")


def test_keys(pages: Mapping[str, Page]) -> None:
    """Every key in the section it belongs to, with what is allowed, default, and whether to restart."""
    page = pages["netmond.toml.5"]
    outputs = {
        "OUTPUT.CSV": csv.OPTIONS,
        "OUTPUT.JOURNAL": journal.OPTIONS,
        "OUTPUT.JSON": EXPORTED["json"],
        "OUTPUT.SYSLOG": EXPORTED["syslog"],
        "OUTPUT.PROMETHEUS": EXPORTED["prometheus"],
        "OUTPUT.PUSH": EXPORTED["push"],
        "OUTPUT.IPFIX": EXPORTED["ipfix"],
    }
    known = [(setting.section.upper(), setting) for setting in SETTINGS if setting.in_file]
    known += [(section, setting) for section, settings in outputs.items() for setting in settings]

    for section, setting in known:
        text = page.entry(f"{setting.key} =", f"[{section}] SECTION")

        assert setting.help[1:] in text
        assert setting.kind.allowed[1:] in text
        assert "Default: " in text
        assert ("restarted" in text) == setting.restart
        assert all(flag in text for flag in (*setting.flags[-1:], setting.env))
    for section in outputs:
        assert page.entry("enabled =", f"[{section}] SECTION")


@pytest.mark.parametrize(
    "name", ["org.netmond1.Manager", "org.netmond1.Target", "org.freedesktop.LogControl1"]
)
def test_bus(pages: Mapping[str, Page], name: str) -> None:
    """Every member of every interface: in the synopsis, and with all that the XML says about it."""
    page = pages["org.netmond1.5"]
    interface = ElementTree.parse(ROOT / "packaging" / "dbus" / f"{name}.xml").getroot().find("interface")
    assert interface is not None
    words = " ".join(page.text.split())

    assert f"interface {name} {{" in page.text
    for member in interface:
        if member.tag in ("method", "signal", "property"):
            call = "()" if member.tag != "property" else ""
            assert re.search(rf"^ +{member.get('name')}{re.escape(call)}( |$)", page.text, re.MULTILINE)
            assert re.search(rf"\b{member.get('name')}[(;]", page.text)
            for paragraph in member.iter("{http://www.freedesktop.org/dbus/1.0/doc.dtd}para"):
                assert " ".join((paragraph.text or "").split()) in words


def test_metrics(pages: Mapping[str, Page]) -> None:
    """Every metric with its meaning and its labels."""
    page = pages["netmond-metrics.5"]
    expanded = re.sub(
        r"(\S+)_\{receive,transmit\}_\{bytes,packets\}_total",
        lambda match: " ".join(
            f"{match[1]}_{way}_{unit}_total"
            for way in ("receive", "transmit")
            for unit in ("bytes", "packets")
        ),
        page.text,
    )

    for family in (*metrics.FAMILIES, *xtrace.FAMILIES):
        assert re.search(rf"\b{family.name}\b", expanded), family.name
        assert all(label in page.text for label in family.labels)
    for family in metrics.SINGLE:
        assert family.help[1:] in page.entry(family.name, "METRICS")


def sources(*places: str) -> Iterator[Path]:
    for place in places:
        yield from (ROOT / place).rglob("*.py")


def named(call: str, *places: str) -> set[str]:
    """The names that calls like ``Loss(name=...)`` give; what varies is NAME."""
    found = set()
    for path in sources(*places):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == call:
                for keyword in node.keywords:
                    if keyword.arg == "name" and isinstance(keyword.value, ast.Constant | ast.JoinedStr):
                        found.add(re.sub(r"\{.*?\}", "NAME", ast.unparse(keyword.value).strip("f'\"")))
    return found


def test_losses(pages: Mapping[str, Page]) -> None:
    """Every loss counter, those of the kernel's programs with their meaning."""
    section = pages["netmond.8"].section("LOSSES")

    for name, meaning in SOCKET_LOSSES + INTERFACE_LOSSES:
        assert name in section
        assert meaning[1:] in section
    for name in named("Loss", "netmond"):
        assert name.replace("NAME.", "output.NAME.", name.startswith("NAME")) in section


def test_features(pages: Mapping[str, Page]) -> None:
    """Every part of netmond that has a state."""
    section = pages["netmond.8"].section("FEATURES")

    assert {name for name in named("Feature", "netmond") if name not in section} == set()


def test_journal(pages: Mapping[str, Page]) -> None:
    """Every message id, and every field that the code writes."""
    section = pages["netmond.8"].section("JOURNAL")
    quoted = re.compile(r"[\"'](NETMOND_[A-Z_]+)[\"']")
    written = {field for path in sources("netmond") for field in quoted.findall(path.read_text())}

    assert [message.name for message in MessageId if message.value not in section] == []
    assert {field for field in written if field not in pages["netmond.8"].text} == set()


@pytest.mark.parametrize(("name", "place"), [("netmond.8", "netmond"), ("netmonctl.1", "netmonctl")])
def test_environment(pages: Mapping[str, Page], name: str, place: str) -> None:
    """Every variable that is read."""
    section = pages[name].section("ENVIRONMENT")
    read = {
        variable
        for path in sources(place)
        for variable in re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", path.read_text())
    }
    read |= {setting.env for setting in SETTINGS if setting.env and place == "netmond"}

    assert read - {"_ARGCOMPLETE"} - set(re.findall(r"[A-Z_]+", section)) == set()


def test_files(pages: Mapping[str, Page]) -> None:
    """Every directory that something is installed in, but those of the pages themselves."""
    installed = re.findall(r"call put,(/[^,]+),", (ROOT / "Makefile").read_text())
    text = "".join(page.text for page in pages.values())

    assert len(installed) > 5
    assert [place for place in installed if place not in text and "/man/" not in place] == []


def test_own_pages_are_named_right(pages: Mapping[str, Page]) -> None:
    """A reference to a page of ours leads to one."""
    for page in pages.values():
        for name, number in re.findall(r"\b((?:netmon|org\.netmond)[\w.]*)\((\d)\)", page.text):
            assert f"{name}.{number}" in PAGES


@pytest.mark.parametrize("name", PAGES)
def test_examples_of_the_client(pages: Mapping[str, Page], name: str) -> None:
    """The commands shown are commands; only those that show a mistake are not."""
    parser, commands = netmonctl.parsers()

    for command in pages[name].commands("netmonctl"):
        line = arrange(shell_words(command)[1:], commands.verbs, "status")
        parser.parse_args(line.words())


@pytest.mark.parametrize("name", PAGES)
def test_examples_of_the_daemon(pages: Mapping[str, Page], name: str) -> None:
    """Likewise."""
    for command in pages[name].commands("netmond"):
        argument_parser().parse_args(shell_words(command)[1:])


def shell_words(command: str) -> list[str]:
    import shlex

    return shlex.split(command, comments=True)


def test_examples_of_the_configuration(pages: Mapping[str, Page], tmp_path: Path) -> None:
    """The files shown load without a warning, their outputs' keys included."""
    examples = [text for text in pages["netmond.toml.5"].examples() if text.startswith("[")]
    path = tmp_path / "netmond.toml"

    assert len(examples) >= 3
    for text in examples:
        path.write_text(text)
        config, warnings = load(argument_parser().parse_args(["-c", str(path)]), {})
        assert warnings == []
        for output in config.outputs.values():
            options_of = {"csv": csv.OPTIONS, "journal": journal.OPTIONS}[output.name]
            assert read_options(options_of, output)[1] == []


def test_example_in_python(pages: Mapping[str, Page]) -> None:
    """The program shown is one."""
    (text,) = (text for text in pages["org.netmond1.5"].examples() if text.startswith("import"))

    compile(text, "example", "exec")


def test_examples_of_busctl(pages: Mapping[str, Page]) -> None:
    """Member and signature are those of the interface."""
    interface = ElementTree.parse(ROOT / "packaging" / "dbus" / "org.netmond1.Manager.xml").getroot()[0]
    methods = {each.get("name"): each for each in interface.findall("method")}
    commands = [command.split() for command in pages["org.netmond1.5"].commands("busctl")]

    assert len(commands) >= 3
    for command in commands:
        member, *given = command[command.index("org.netmond1.Manager") + 1 :]
        signature = "".join(
            str(arg.get("type")) for arg in methods[member].findall("arg") if arg.get("direction") == "in"
        )
        assert (given or [""])[0] == signature
