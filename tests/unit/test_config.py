"""Configuration: precedence, errors a person can act on, and the shipped default file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from netmond.config import Config, argument_parser, defaults, load, needs_restart, read_options
from netmond.config_table import SECTIONS, SETTINGS
from netmond.errors import ConfigError
from netmond.outputs import csv, journal
from netmond.settings import Setting, number, size

ROOT = Path(__file__).resolve().parents[2]

Write = Callable[[str], Path]


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """Where the configuration file of a test is."""
    (tmp_path / "netmond.d").mkdir(mode=0o755)
    return tmp_path / "netmond.toml"


def read(main: Path, *flags: str, **environ: str) -> Config:
    """Load and expect no warnings."""
    result, warnings = load(argument_parser().parse_args(flags), environ, main)
    assert warnings == []
    return result


def refused(main: Path, *flags: str, **environ: str) -> str:
    """Load and return the error, which must be one line."""
    with pytest.raises(ConfigError) as caught:
        load(argument_parser().parse_args(flags), environ, main)
    message = str(caught.value)
    assert "\n" not in message
    return message


def warned(main: Path) -> list[str]:
    return load(argument_parser().parse_args([]), {}, main)[1]


class TestSources:
    def test_nothing_there(self, tmp_path: Path) -> None:
        """Without any file, flag or variable the defaults hold, and that is no error."""
        result = read(tmp_path / "nowhere" / "netmond.toml")

        assert result == defaults()
        assert (result.daemon.interval, result.daemon.log_level) == (1.0, "info")
        assert (result.meter.slots, result.meter.peers, result.meter.idle) == (65536, 16384, 600.0)
        assert (result.interfaces.monitor, result.interfaces.attach) == (("auto",), "auto")
        assert (result.interfaces.forwarded, result.targets.limit) == (16384, 16384)
        assert result.access.group == "netmond"
        assert result.daemon.log_dir == Path("/var/log/netmond")

    def test_each_source_beats_the_one_before(self, main: Path) -> None:
        """Default < file < drop-ins by name < environment < flag."""
        main.write_text('daemon.log_level = "err"')
        assert read(main).daemon.log_level == "err"

        (main.parent / "netmond.d" / "20.toml").write_text('daemon.log_level = "crit"')
        (main.parent / "netmond.d" / "10.toml").write_text('daemon.log_level = "alert"')
        assert read(main).daemon.log_level == "crit"

        assert read(main, NETMOND_LOG_LEVEL="debug").daemon.log_level == "debug"
        assert read(main, "--log-level", "notice", NETMOND_LOG_LEVEL="debug").daemon.log_level == "notice"

    def test_drop_ins_add_keys(self, main: Path) -> None:
        """A drop-in changes only the keys it names; only *.toml counts, and no hidden file."""
        main.write_text("[meter]\nslots = 23\npeers = 29")
        (main.parent / "netmond.d" / "a.toml").write_text("[meter]\npeers = 31")
        (main.parent / "netmond.d" / "b.toml.dpkg-old").write_text("[meter]\npeers = 37")
        (main.parent / "netmond.d" / ".c.toml").write_text("[meter]\npeers = 41")

        assert (read(main).meter.slots, read(main).meter.peers) == (23, 31)

    def test_variables_of_the_old_tools(self, main: Path) -> None:
        """TARGET_IP and NETWORK_INTERFACE are comma-separated; spaces and empty parts do not matter."""
        result = read(main, TARGET_IP="192.0.2.1, 2001:db8::/32,", NETWORK_INTERFACE="eth0,wlan0")

        assert result.targets.addresses == (ip_network("192.0.2.1"), ip_network("2001:db8::/32"))
        assert result.interfaces.monitor == ("eth0", "wlan0")

    def test_an_empty_variable_is_none(self, main: Path) -> None:
        """An empty variable does not hide what the file says."""
        main.write_text('targets.addresses = ["192.0.2.1"]')

        assert read(main, TARGET_IP="").targets.addresses == (ip_network("192.0.2.1"),)

    def test_flags_repeat(self, main: Path) -> None:
        """-t and -i repeat and replace the list of the file."""
        main.write_text('targets.addresses = ["192.0.2.9"]')

        result = read(
            main, "-t", "192.0.2.1", "-t", "192.0.2.2,192.0.2.3", "-i", "lo", "--interface", "eth1"
        )

        assert [str(each) for each in result.targets.addresses] == [
            "192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32",
        ]  # fmt: skip
        assert result.interfaces.monitor == ("lo", "eth1")

    def test_every_flag_of_the_daemon(self, main: Path, tmp_path: Path) -> None:
        """The command line as documented."""
        other = tmp_path / "other.toml"
        other.write_text("meter.slots = 23")
        arguments = argument_parser().parse_args(
            ["-c", str(other), "--state-dir", "/s", "--log-dir", "/l", "--cgroup", "user.slice", "--check",
             "--interval", "0.5", "--attach", "xdp"]
        )  # fmt: skip

        result, _ = load(arguments, {"STATE_DIRECTORY": "/x"}, main)

        assert arguments.check
        assert result.meter.slots == 23
        assert (result.daemon.state_dir, result.daemon.log_dir) == (Path("/s"), Path("/l"))
        assert (result.daemon.interval, result.meter.cgroup, result.interfaces.attach) == (
            0.5, "user.slice", "xdp",
        )  # fmt: skip

    def test_directories_of_systemd(self, main: Path) -> None:
        """STATE_DIRECTORY and LOGS_DIRECTORY are honoured; of several the first counts."""
        result = read(main, STATE_DIRECTORY="/run/a:/run/b", LOGS_DIRECTORY="/run/c")

        assert (result.daemon.state_dir, result.daemon.log_dir) == (Path("/run/a"), Path("/run/c"))

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--version prints the version and ends."""
        with pytest.raises(SystemExit) as caught:
            argument_parser().parse_args(["--version"])

        assert caught.value.code == 0
        assert re.fullmatch(r"netmond \d+\.\d+\.\d+\n", capsys.readouterr().out)

    def test_help_names_every_flag(self) -> None:
        """The help text comes from the table."""
        text = argument_parser().format_help()

        assert all(flag in text for setting in SETTINGS for flag in setting.flags)

    def test_dev_null_is_an_empty_file(self) -> None:
        """-c /dev/null means no configuration, although everybody may write that."""
        assert read(Path("/unused"), "-c", "/dev/null") == defaults()


class TestValues:
    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("daemon.interval = 0.05", "daemon.interval = 0.05: must be a number of seconds from 0.1 to 60"),
            ("daemon.interval = true", "daemon.interval = true: must be a number of seconds from 0.1 to 60"),
            ("daemon.interval = nan", "daemon.interval = nan: must be a number of seconds from 0.1 to 60"),
            ('daemon.interval = "1"', 'daemon.interval = "1": must be a number of seconds from 0.1 to 60'),
            (
                'daemon.log_level = "loud"',
                'daemon.log_level = "loud": must be one of emerg, alert, crit, err, warning, notice, info, '
                "debug",
            ),
            ("meter.slots = 0", "meter.slots = 0: must be a whole number from 1 to 4194304"),
            ("meter.slots = 1.5", "meter.slots = 1.5: must be a whole number from 1 to 4194304"),
            ("meter.slots = {}", "meter.slots = {…}: must be a whole number from 1 to 4194304"),
            ("meter.enabled = 1", "meter.enabled = 1: must be true or false"),
            ("meter.idle = -1", "meter.idle = -1: must be a number of seconds from 1 to 604800"),
            (
                'meter.cgroup = "../x"',
                'meter.cgroup = "../x": must be empty, or a path like "user.slice" or '
                '"/sys/fs/cgroup/user.slice"',
            ),
            (
                'interfaces.attach = "xpd"',
                'interfaces.attach = "xpd": must be one of auto, tc, xdp, xdp-generic',
            ),
            (
                'interfaces.monitor = ["eth0", "a/b"]',
                'interfaces.monitor = ["eth0", "a/b"]: "a/b" is not "auto" or an interface name '
                "(1 to 15 characters, no space, slash or colon)",
            ),
            (
                'targets.addresses = ["192.0.2.1/24"]',
                'targets.addresses = ["192.0.2.1/24"]: 192.0.2.1/24 has host bits set: '
                "write 192.0.2.0/24 for the network or 192.0.2.1 for one address",
            ),
            (
                'targets.addresses = ["2001:db8::1/32"]',
                'targets.addresses = ["2001:db8::1/32"]: 2001:db8::1/32 has host bits set: '
                "write 2001:db8::/32 for the network or 2001:db8::1 for one address",
            ),
            (
                'targets.addresses = ["192.0.2"]',
                'targets.addresses = ["192.0.2"]: "192.0.2" is not an address or prefix like '
                "192.0.2.1 or 2001:db8::/32",
            ),
            (
                "targets.addresses = [7]",
                "targets.addresses = [7]: 7 is not an address or prefix like 192.0.2.1 or 2001:db8::/32",
            ),
            (
                'targets.addresses = ["fe80::1%eth0"]',
                'targets.addresses = ["fe80::1%eth0"]: "fe80::1%eth0": a target cannot name an interface, '
                "leave out what follows the %",
            ),
            ('access.group = "no such\\n"', r'access.group = "no such\n": must be empty, or a group name'),
            ("meter = 5", "meter = 5: must be a section, written [meter]"),
            ("output.csv = false", "output.csv = false: must be a section, written [output.csv]"),
            ('output.csv.enabled = "no"', 'output.csv.enabled = "no": must be true or false'),
            (
                'interface.eth0 = "xdp"',
                'interface.eth0 = "xdp": must be a section, written [interface.eth0]',
            ),
            (
                'interface.eth0.attach = "x"',
                'interface.eth0.attach = "x": must be one of auto, tc, xdp, xdp-generic',
            ),
        ],
    )
    def test_bad_value(self, main: Path, line: str, problem: str) -> None:
        """One line: file, key, value, what is allowed."""
        main.write_text(line)

        assert refused(main) == f"{main}: {problem}"

    def test_the_file_at_fault_is_named(self, main: Path) -> None:
        """A drop-in's mistake is not blamed on the main file, and a later good value does not hide it."""
        drop_in = main.parent / "netmond.d" / "a.toml"
        drop_in.write_text("meter.slots = -23")

        assert refused(main).startswith(f"{drop_in}: meter.slots = -23: ")
        (main.parent / "netmond.d" / "b.toml").write_text("meter.slots = 23")
        assert refused(main).startswith(f"{drop_in}: meter.slots = -23: ")

    def test_flags_and_variables_are_named(self, main: Path) -> None:
        """A mistake on the command line or in the environment is shown as it was written."""
        assert refused(main, "--interval", "soon") == (
            "--interval soon: must be a number of seconds from 0.1 to 60"
        )
        assert refused(main, TARGET_IP="192.0.2.1,10.0.0.1/8") == (
            "TARGET_IP=192.0.2.1,10.0.0.1/8: 10.0.0.1/8 has host bits set: "
            "write 10.0.0.0/8 for the network or 10.0.0.1 for one address"
        )
        assert refused(main, "-i", "eth 0").startswith('--interface eth 0: "eth 0" is not "auto" or an')

    def test_xtrace_environment(self, main: Path) -> None:
        """The variables of XTrace-Catch switch its names on, beat the file, and leave other keys alone."""
        variable = {"VICTORIAMETRICS_ENABLED": "true", "VICTORIAMETRICS_REMOTE_WRITE": "http://vm:1/x"}
        main.write_text('[output.push]\nenabled = false\nurl = "http://file:2/y"\nflows = 23')
        push = read(main, **variable).outputs["push"]

        assert push.enabled
        assert push.options == {"url": "http://vm:1/x", "xtrace_names": True, "flows": 23}
        assert push.origins["url"] == "VICTORIAMETRICS_REMOTE_WRITE"
        del variable["VICTORIAMETRICS_REMOTE_WRITE"]
        assert read(main, **variable).outputs["push"].options["url"] == "http://file:2/y"

    def test_xtrace_environment_alone(self, main: Path) -> None:
        """Without a file there is a default; false is no more than no; what has no effect is warned of."""
        push = read(main, VICTORIAMETRICS_ENABLED="TRUE").outputs["push"]

        assert push.options["url"] == "http://localhost:8428/api/v1/import/prometheus"
        assert read(main, VICTORIAMETRICS_ENABLED="false").outputs == {}
        main.write_text('[output.push]\nurl = "http://file:2/y"')
        assert not read(main, VICTORIAMETRICS_ENABLED="false").outputs["push"].enabled
        assert refused(main, VICTORIAMETRICS_ENABLED="maybe") == (
            "VICTORIAMETRICS_ENABLED=maybe: must be true or false"
        )
        environ = {"VICTORIAMETRICS_REMOTE_WRITE": "http://vm:1/x"}
        assert load(argument_parser().parse_args([]), environ, main)[1] == [
            "VICTORIAMETRICS_REMOTE_WRITE is ignored without VICTORIAMETRICS_ENABLED=true"
        ]

    def test_more_targets_than_allowed(self, main: Path) -> None:
        """targets.limit holds for the configured targets, too."""
        main.write_text('[targets]\nlimit = 1\naddresses = ["192.0.2.1", "192.0.2.2"]')

        assert refused(main).endswith(": 2 targets, but targets.limit allows 1")

    def test_equal_addresses_are_one(self, main: Path) -> None:
        """Repetitions and IPv4 written as mapped IPv6 do not make a second target."""
        assert read(main, TARGET_IP="192.0.2.1,192.0.2.1/32,::ffff:192.0.2.1").targets.addresses == (
            ip_network("192.0.2.1"),
        )

    def test_attach_for_one_interface(self, main: Path) -> None:
        """[interface.NAME] beats the general way to attach; a quoted name may have dots."""
        main.write_text(
            'interfaces.attach = "tc"\n[interface.eth1]\nattach = "xdp"\n'
            '[interface."eth0.7"]\nattach = "auto"'
        )

        interfaces = read(main).interfaces

        assert [interfaces.attach_for(name) for name in ("eth0", "eth1", "eth0.7")] == ["tc", "xdp", "auto"]

    def test_hostile_text_stays_in_one_line(self, main: Path) -> None:
        """Control characters and endless values cannot break the message."""
        main.write_text(f'interfaces.attach = "\\u001b[2J\\n{"x" * 1000}"')

        message = refused(main)

        assert message.isprintable()
        assert len(message) < 300


class TestUnknown:
    @pytest.mark.parametrize(
        ("text", "warning"),
        [
            ("[metre]", 'unknown section [metre] ignored, did you mean "meter"?'),
            ("volume = 11", "unknown section [volume] ignored"),
            ("[meter]\nslot = 23", 'unknown key meter.slot ignored, did you mean "slots"?'),
            ("[daemon]\nzzz = 23", "unknown key daemon.zzz ignored"),
            (
                'daemon.log_dir = "/x"',
                "unknown key daemon.log_dir ignored, set it with --log-dir or LOGS_DIRECTORY",
            ),
            (
                '[interfaces.eth1]\nattach = "xdp"',
                "unknown key interfaces.eth1 ignored, did you mean [interface.eth1]?",
            ),
            (
                '[interface.eth0.7]\nattach = "xdp"',
                'unknown key interface.eth0.7 ignored, a name with a dot is written [interface."eth0.7"]',
            ),
            ("interface.eth0.atach = 1", 'unknown key interface.eth0.atach ignored, did you mean "attach"?'),
            ('"a\\nb" = 1', r"unknown section [a\nb] ignored"),
        ],
    )
    def test_warning(self, main: Path, text: str, warning: str) -> None:
        """What nobody knows is ignored with a warning that names file and key."""
        main.write_text(text)

        assert warned(main) == [f"{main}: {warning}"]

    def test_keys_of_outputs_wait_for_the_output(self, main: Path) -> None:
        """Sections of outputs are handed on unread, merged key by key, with the file of every key."""
        drop_in = main.parent / "netmond.d" / "a.toml"
        main.write_text("[output.mine]\ncolour = 23\nsize = 29")
        drop_in.write_text("[output.mine]\nsize = 31\nenabled = false")

        mine = read(main).output("mine")

        assert (mine.name, mine.enabled) == ("mine", False)
        assert mine.options == {"colour": 23, "size": 31}
        assert mine.origins == {"colour": str(main), "size": str(drop_in)}

    def test_outputs_without_a_section(self) -> None:
        """An output nobody mentions is on and has the directories."""
        assert defaults().output("csv").enabled
        assert defaults().output("csv").log_dir == Path("/var/log/netmond")


class TestFiles:
    def test_syntax(self, main: Path) -> None:
        """Broken TOML is refused with file and place."""
        main.write_text("[daemon]\ninterval = = 3")

        assert refused(main) == f"{main}: not valid TOML: Invalid value (at line 2, column 12)"

    def test_not_text(self, main: Path) -> None:
        """Bytes that are no UTF-8 are refused, not a traceback."""
        main.write_bytes(b"a = '\xff'")

        assert refused(main) == f"{main}: not UTF-8 text (byte 5)"

    def test_nested_without_end(self, main: Path) -> None:
        """Nesting deeper than the parser can go is refused, not a crash."""
        main.write_text("a = " + "[" * 20000)

        assert refused(main) == f"{main}: not valid TOML: nested too deeply"

    def test_named_file_must_exist(self, main: Path) -> None:
        """The default file may be missing, one named with -c may not."""
        assert refused(main, "-c", "/nonexistent.toml") == "/nonexistent.toml: no such configuration file"

    def test_directory_or_fifo(self, main: Path) -> None:
        """What is no regular file is refused and cannot block the start."""
        os.mkfifo(main)

        assert refused(main) == f"{main}: not a regular file"

    def test_world_writable(self, main: Path) -> None:
        """A file that everybody may write is not trusted."""
        main.write_text("")
        main.chmod(0o666)

        assert refused(main) == f"{main}: everybody may write it, so it is not trusted: chmod o-w {main}"

    def test_world_writable_directory(self, main: Path) -> None:
        """Nor are drop-ins from a directory into which everybody may put files."""
        directory = main.parent / "netmond.d"
        directory.chmod(0o777)

        assert refused(main).startswith(f"{directory}: everybody may write it")

    def test_unreadable(self, main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that exists but cannot be read is an error, not an empty configuration."""
        main.write_text("")

        def deny(*_: Any) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", deny)

        assert refused(main) == f"{main}: cannot read the configuration: Permission denied"


class TestReload:
    def test_what_needs_a_restart(self, main: Path) -> None:
        """Sizes of kernel tables and directories wait for a restart; the rest applies at once."""
        old = read(main)
        main.write_text(
            '[daemon]\ninterval = 2\n[meter]\nslots = 23\nidle = 30\n[interfaces]\nmonitor = ["lo"]\n'
            'forwarded = 29\n[targets]\naddresses = ["192.0.2.1"]\n[access]\ngroup = "adm"'
        )

        assert needs_restart(old, read(main, "--log-dir", "/x")) == [
            "daemon.log_dir", "meter.slots", "interfaces.forwarded",
        ]  # fmt: skip
        assert needs_restart(old, old) == []


class TestOptionsOfOutputs:
    OPTIONS = (
        Setting(key="rate", kind=number(1, 7), default=2, help=""),
        Setting(key="room", kind=size(0, 1 << 40), default="16M", help=""),
    )

    def test_defaults(self) -> None:
        """A key that is not given has its default, read like a given one."""
        assert read_options(self.OPTIONS, defaults().output("x")) == ({"rate": 2.0, "room": 16 << 20}, [])

    @pytest.mark.parametrize(
        ("written", "meant"),
        [("23", 23), ('"23"', 23), ('"23K"', 23 << 10), ('"23 MiB"', 23 << 20), ('"1G"', 1 << 30)],
    )
    def test_sizes(self, main: Path, written: str, meant: int) -> None:
        """Sizes are bytes or have a suffix."""
        main.write_text(f"[output.x]\nroom = {written}")

        assert read_options(self.OPTIONS, read(main).output("x"))[0]["room"] == meant

    @pytest.mark.parametrize("written", ['"23X"', '"-1"', "-1", "1.5", "true", '"2T"', '""'])
    def test_bad_size(self, main: Path, written: str) -> None:
        """What is no size is refused in the style of all errors."""
        main.write_text(f"[output.x]\nroom = {written}")

        with pytest.raises(ConfigError) as caught:
            read_options(self.OPTIONS, read(main).output("x"))
        assert str(caught.value) == (
            f"{main}: output.x.room = {written}: must be a size in bytes from 0 to {1 << 40}, "
            'or text like "16M"'
        )

    def test_unknown_key(self, main: Path) -> None:
        """An unknown key of an output is a warning like every other."""
        main.write_text("[output.x]\nrates = 3")

        assert read_options(self.OPTIONS, read(main).output("x"))[1] == [
            f'{main}: unknown key output.x.rates ignored, did you mean "rate"?'
        ]


class TestShippedFile:
    FILE = ROOT / "packaging" / "netmond.toml"
    TEXT = FILE.read_text()

    def test_changes_nothing(self) -> None:
        """As shipped it is the defaults, without warnings."""
        written = tomllib.loads(self.TEXT)

        assert written.pop("output") == {"csv": {}, "journal": {}}
        assert written == {section: {} for section in SECTIONS}

    def test_shows_every_key_with_its_default(self, main: Path) -> None:
        """Uncommented it has exactly the known keys, and all of them with their defaults."""
        main.write_text(re.sub(r"^#(?=\w+ = )", "", self.TEXT, flags=re.MULTILINE))
        shown = tomllib.loads(main.read_text())

        result = read(main)

        known = {setting.name for setting in SETTINGS if setting.in_file}
        assert {f"{section}.{key}" for section in SECTIONS for key in shown[section]} == known
        assert {**vars_of(result), "outputs": {}} == vars_of(defaults())
        for name, options in (("csv", csv.OPTIONS), ("journal", journal.OPTIONS)):
            assert set(shown["output"][name]) == {"enabled", *(setting.key for setting in options)}
            assert read_options(options, result.output(name)) == read_options(
                options, defaults().output(name)
            )

    def test_says_what_is_allowed(self) -> None:
        """Above every key stands its range or its choices, and whether a change waits for a restart."""
        outputs = (("output.csv", csv.OPTIONS), ("output.journal", journal.OPTIONS))
        known = [(setting.section, setting) for setting in SETTINGS if setting.in_file]
        known += [(section, setting) for section, options in outputs for setting in options]

        for section, setting in known:
            text = self.TEXT.partition(f"[{section}]\n")[2].partition(f"\n#{setting.key} = ")[0]
            comment = text.rpartition("\n\n")[2]
            bounds = re.search(r"from ([\d.]+) to (\d+)", setting.kind.allowed)
            if bounds:
                size = setting.kind.allowed.startswith("a size")
                numbers = re.findall(r"[\d.]*\d[KGT]?", comment)
                assert all((short(bound) if size else bound) in numbers for bound in bounds.groups())
            if setting.kind.allowed.startswith("one of"):
                assert not set(setting.kind.allowed[7:].split(", ")) - set(re.findall(r"[\w-]+", comment))
            assert ("(restart)" in comment) == setting.restart


def short(size: str) -> str:
    """A number of bytes with the largest suffix of 1024 that fits."""
    return next(
        f"{int(size) >> shift}{suffix}"
        for shift, suffix in ((40, "T"), (30, "G"), (10, "K"))
        if int(size) >> shift
    )


def vars_of(result: Config) -> dict[str, Any]:
    return {name: getattr(result, name) for name in Config.__dataclass_fields__}
