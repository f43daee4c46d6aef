"""The journal output: what it reports of the difference between snapshots, and how often."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond import __version__
from netmond.config import defaults
from netmond.model import (
    COUNTERS,
    NO_RDMA_DEVICE,
    Feature,
    FeatureState,
    InterfaceInfo,
    Loss,
    Rdma,
    RdmaPort,
    Snapshot,
    Table,
)
from netmond.outputs import audit, journal
from netmond.outputs.journal import JournalOutput
from netmond.outputs.limit import BURST, WINDOW
from netmond.outputs.log import reloaded
from netmond.outputs.messages import MessageId
from netmond.users import Names

CATALOG = Path(__file__).resolve().parents[2] / "packaging" / "journal" / "netmond.catalog"
START = 1795231800.0


def table(key: str, kind: str, rows: Mapping[Any, tuple[int, int, int, int]]) -> Table:
    """Rows by key with in_packets, in_bytes, out_packets, out_bytes."""
    counters = np.zeros((len(rows), len(COUNTERS)), np.uint64)
    if rows:
        counters[:, :4] = list(rows.values())
    return Table(
        columns={key: np.array(list(rows), kind)}, counters=counters, rates=np.zeros((len(rows), 4))
    )


def snapshot(
    after: float = 1.0,
    *,
    users: Mapping[int, tuple[int, int, int, int]] | None = None,
    targets: Mapping[str, tuple[int, int, int, int]] | None = None,
    features: tuple[Feature, ...] = (),
    losses: tuple[Loss, ...] = (),
    tick: int = 1,
    rdma: Rdma | None = None,
) -> Snapshot:
    none = Table.empty()
    links = {2: InterfaceInfo(name="eth0", index=2, kind="physical", state="up", monitored=True)}
    return Snapshot(
        tick=tick, time=START + after, interval=1.0, since=START, units=none, processes=none, flows=none,
        interfaces=none, users=table("uid", "u4", users or {}), targets=table("address", "O", targets or {}),
        features=features, losses=losses, links=links, rdma=rdma or Rdma(),
    )  # fmt: skip


class Journal:
    """Collects what was sent."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[tuple[str, int, dict[str, str]]] = []
        self.fail = False
        names = Names(name_of=lambda uid: {1009: "alice", 1013: "b\nob"}[uid])
        self.output = JournalOutput(self._send, names)
        self.output.init(replace(defaults().output("journal"), options=options))

    def _send(self, message: str, priority: int, fields: Mapping[str, str]) -> None:
        if self.fail:
            raise OSError("the journal is full")
        self.sent.append((message, priority, dict(fields)))

    def of(self, kind: MessageId) -> list[tuple[str, int, dict[str, str]]]:
        return [each for each in self.sent if each[2]["MESSAGE_ID"] == kind.value]


def test_started() -> None:
    """The first snapshot says what runs."""
    there = Journal()
    there.output.write(snapshot(targets={"192.0.2.1": (0, 0, 0, 0)}))

    assert there.sent == [
        (
            f"netmond {__version__} reports; interfaces: eth0; targets: 1",
            6,
            {
                "MESSAGE_ID": "c917c5705c914a41bc095bddc37bc826", "NETMOND_VERSION": __version__,
                "NETMOND_INTERFACES": "eth0", "NETMOND_TARGETS": "1", "NETMOND_SINCE": "1795231800.000000",
            },
        )
    ]  # fmt: skip


def test_stopped() -> None:
    """At the end a last summary and the totals of all users."""
    there = Journal()
    there.output.write(snapshot(users={1009: (2, 2300, 1, 60), 1013: (1, 1, 0, 0)}))
    there.output.close()
    there.output.close()

    assert len(there.of(MessageId.USER_SUMMARY)) == 2
    assert there.sent[-1] == (
        "netmond stops reporting, users had 2.2 KiB in, 60 B out",
        6,
        {
            "MESSAGE_ID": "ac1f320dd7d0455aaa8eeabc8425d5e0", "NETMOND_SINCE": "1795231800.000000",
            "NETMOND_IN_PACKETS": "3", "NETMOND_IN_BYTES": "2301",
            "NETMOND_OUT_PACKETS": "1", "NETMOND_OUT_BYTES": "60",
        },
    )  # fmt: skip


def test_features() -> None:
    """Changes of state or reason are reported once; at the start what is not on."""
    there = Journal()
    on = Feature(name="meter", state=FeatureState.ON)
    off = Feature(name="targets", state=FeatureState.OFF, reason="no BTF: boot another kernel")
    bad = Feature(name="meter", state=FeatureState.DEGRADED, reason="no cgroup2")
    for tick, features in enumerate([(on, off), (on, off), (bad, off), (bad, off), (on, off)], 1):
        there.output.write(snapshot(tick, features=features))

    assert [(message, priority) for message, priority, _ in there.of(MessageId.FEATURE)] == [
        ("targets is off: no BTF: boot another kernel", 4),
        ("meter is degraded: no cgroup2", 4),
        ("meter is on", 5),
    ]
    assert there.of(MessageId.FEATURE)[1][2] == {
        "MESSAGE_ID": "52dfce02103a4e8299b2d7118ec56565", "NETMOND_FEATURE": "meter",
        "NETMOND_STATE": "degraded", "NETMOND_PREVIOUS_STATE": "on", "NETMOND_REASON": "no cgroup2",
    }  # fmt: skip


def test_without_rdma() -> None:
    """That a machine has no such device is worth a notice, and no warning."""
    there = Journal()
    off = Feature(name="rdma", state=FeatureState.OFF, reason=NO_RDMA_DEVICE)
    there.output.write(snapshot(features=(off,)))

    assert [(message, priority) for message, priority, _ in there.of(MessageId.FEATURE)] == [
        ("rdma is off: no RDMA device", 5)
    ]


def test_losses() -> None:
    """A loss is reported at once, then at most once a minute with everything since."""
    there = Journal()
    for after, count in [(1, 0), (2, 23), (3, 29), (61, 31), (62, 37), (200, 37)]:
        there.output.write(
            snapshot(after, losses=(Loss(name="meter.no-slot", count=count, meaning="full"),))
        )

    assert [(message, priority) for message, priority, _ in there.of(MessageId.LOSS)] == [
        ("meter.no-slot: 23 more, 23 in all: full", 4),
        ("meter.no-slot: 14 more, 37 in all: full", 4),
    ]
    assert there.of(MessageId.LOSS)[1][2] == {
        "MESSAGE_ID": "75e82a582f5b47968c65c5df9192f0f0", "NETMOND_LOSS": "meter.no-slot",
        "NETMOND_COUNT": "14", "NETMOND_TOTAL": "37", "NETMOND_MEANING": "full",
    }  # fmt: skip


def losses_at(after: float, **counts: int) -> Snapshot:
    """A snapshot with these lines in its ledger."""
    lines = (Loss(name=name, count=count, meaning="full") for name, count in counts.items())
    return snapshot(after, losses=tuple(lines))


def told_losses(there: Journal) -> list[tuple[str, str, str]]:
    """Name, growth and sum of each message about a loss."""
    names = ("NETMOND_LOSS", "NETMOND_COUNT", "NETMOND_TOTAL")
    return [
        (fields[names[0]], fields[names[1]], fields[names[2]]) for _, _, fields in there.of(MessageId.LOSS)
    ]


def test_losses_of_an_earlier_daemon() -> None:
    """What was lost before the first tick has been told by the one before; what comes then is told."""
    journal = Journal()
    earlier, later = (Loss(name="meter.no-slot", count=count, meaning="full") for count in (23, 24))

    journal.output.write(snapshot(1.0, losses=(earlier,), tick=0))
    journal.output.write(snapshot(2.0, losses=(earlier,), tick=1))
    assert not [fields for _, _, fields in journal.sent if "NETMOND_LOSS" in fields]

    journal.output.write(snapshot(3.0, losses=(later,), tick=2))
    (told,) = [fields for _, _, fields in journal.sent if "NETMOND_LOSS" in fields]
    assert (told["NETMOND_COUNT"], told["NETMOND_TOTAL"]) == ("1", "24")


def test_losses_held_back_at_the_end() -> None:
    """What a pause holds back is told when the output closes: the messages add up to the ledger."""
    there = Journal()
    for after, count in [(1, 23), (2, 29), (3, 31)]:
        there.output.write(losses_at(after, peers=count, slots=7))
    there.output.close()

    assert told_losses(there) == [("peers", "23", "23"), ("slots", "7", "7"), ("peers", "8", "31")]


def test_many_losses_at_once() -> None:
    """Each line of the ledger has a limit of its own: none is left out because others grow, too."""
    there = Journal()
    names = [f"loss{number}" for number in range(3 * BURST)]
    there.output.write(losses_at(1, **dict.fromkeys(names, 23)))
    there.output.write(losses_at(2, **dict.fromkeys(names, 29)))
    there.output.write(losses_at(61, **dict.fromkeys(names, 31)))

    assert told_losses(there) == [
        *((name, "23", "23") for name in names),
        *((name, "8", "31") for name in names),
    ]


def test_losses_that_count_anew() -> None:
    """A counter that fell has begun again: what it says now is new."""
    there = Journal()
    for after, count in [(1, 23), (100, 0), (200, 29), (300, 7)]:
        there.output.write(losses_at(after, peers=count))

    assert told_losses(there) == [("peers", "23", "23"), ("peers", "29", "29"), ("peers", "7", "7")]


def test_losses_that_could_not_be_told() -> None:
    """If the journal takes no message, the growth is in the next one."""
    there = Journal()
    there.fail = True
    with pytest.raises(OSError, match="full"):
        there.output.write(losses_at(1, peers=23))
    there.fail = False
    there.output.write(losses_at(2, peers=29))

    assert told_losses(there) == [("peers", "29", "29")]


def test_targets_come_and_go() -> None:
    """Added and removed targets; those of the start are in the first message only."""
    there = Journal()
    zero = (0, 0, 0, 0)
    there.output.write(snapshot(1, targets={"192.0.2.1": zero, "192.0.2.2": zero}))
    there.output.write(snapshot(2, targets={"192.0.2.1": zero, "192.0.2.2": zero}))
    there.output.write(snapshot(3, targets={"192.0.2.2": zero, "2001:db8::/32": zero}))

    assert [(message, fields["NETMOND_TARGET"]) for message, _, fields in there.sent[1:]] == [
        ("Target 2001:db8::/32 added", "2001:db8::/32"),
        ("Target 192.0.2.1 removed", "192.0.2.1"),
    ]


def test_ten_thousand_targets_at_once() -> None:
    """Messages of one kind are limited; the next one says how many were left out."""
    there = Journal()
    there.output.write(snapshot(1))
    there.output.write(snapshot(2, targets={f"target-{number}": (0, 0, 0, 0) for number in range(10000)}))
    assert len(there.of(MessageId.TARGET_ADDED)) == BURST

    there.output.write(snapshot(2 + WINDOW))
    assert len(there.of(MessageId.TARGET_REMOVED)) == BURST
    there.output.write(snapshot(3 + WINDOW, targets={"192.0.2.1": (0, 0, 0, 0)}))

    message, _, fields = there.of(MessageId.TARGET_ADDED)[-1]
    assert fields["NETMOND_SUPPRESSED"] == str(10000 - BURST)
    assert message == "Target 192.0.2.1 added (9980 similar messages left out before)"


class TestRdma:
    """What becomes of RDMA ports."""

    PORT = RdmaPort(device="mlx5_0", port=1, link_layer="InfiniBand", state="active", speed=100_000_000_000)
    SECOND = RdmaPort(device="rxe0", port=1, link_layer="Ethernet", state="down", netdev="eth0")

    def told(self, *readings: tuple[RdmaPort, ...]) -> list[tuple[str, int, dict[str, str]]]:
        """Messages about ports when these are read one after the other."""
        there = Journal()
        for tick, ports in enumerate(readings):
            there.output.write(snapshot(tick, rdma=Rdma(ports=ports)))
        return [each for each in there.sent if "NETMOND_RDMA_DEVICE" in each[2]]

    def test_found_and_gone(self) -> None:
        """Each once, also those that are there from the beginning."""
        told = self.told((self.PORT,), (self.PORT,), (self.PORT, self.SECOND), (self.SECOND,))

        assert [(message, priority) for message, priority, _ in told] == [
            ("RDMA port mlx5_0/1 found: active; InfiniBand, 100 Gbit/s", 6),
            ("RDMA port rxe0/1 found: down; Ethernet, eth0", 6),
            ("RDMA port mlx5_0/1 is gone, it was active", 4),
        ]
        assert told[1][2] == {
            "MESSAGE_ID": MessageId.RDMA_PORT_FOUND.value, "NETMOND_RDMA_DEVICE": "rxe0",
            "NETMOND_RDMA_PORT": "1", "NETMOND_INTERFACE": "eth0", "NETMOND_STATE": "down",
        }  # fmt: skip

    def test_states(self) -> None:
        """To fall from active is a warning; to come up is worth a notice; other facts are no event."""
        down = replace(self.PORT, state="down", physical_state="polling")
        init = replace(self.PORT, state="init", physical_state="link-up")
        told = self.told(
            (self.PORT,), (down,), (replace(down, physical_state="disabled"),), (init,), (self.PORT,)
        )

        assert [(message, priority) for message, priority, _ in told[1:]] == [
            ("RDMA port mlx5_0/1 is down (polling), it was active", 4),
            ("RDMA port mlx5_0/1 is init (link-up), it was down", 5),
            ("RDMA port mlx5_0/1 is active, it was init", 5),
        ]
        assert told[1][2]["NETMOND_PREVIOUS_STATE"] == "active"

    def test_many_at_once(self) -> None:
        """Limited like all else."""
        ports = tuple(replace(self.PORT, device=f"mlx5_{number}") for number in range(100))

        assert len(self.told(ports)) == BURST


class TestSummary:
    def test_users_and_targets(self) -> None:
        """Each period those with most bytes, with what they had in that period."""
        there = Journal(summary=3600, top=2)
        there.output.write(snapshot(1, users={1009: (1, 100, 1, 100)}))
        there.output.write(
            snapshot(
                3600,
                users={1009: (24, 2400, 2, 200), 1013: (1, 5000, 0, 0), 0: (1, 1, 1, 1)},
                targets={"192.0.2.1": (3, 300, 0, 0), "192.0.2.2": (0, 0, 0, 0)},
            )
        )
        there.output.write(
            snapshot(
                7200,
                users={1009: (24, 2400, 2, 229), 1013: (1, 5000, 0, 0), 0: (1, 1, 1, 1)},
                targets={"192.0.2.1": (1, 100, 0, 0), "192.0.2.2": (0, 0, 0, 0)},
            )
        )

        kinds = (MessageId.USER_SUMMARY, MessageId.TARGET_SUMMARY)
        assert [message for message, _, fields in there.sent if fields["MESSAGE_ID"] in kinds] == [
            "User b\\nob 4.9 KiB in, 0 B out in 3600 s",
            "User alice 2.3 KiB in, 200 B out in 3600 s",
            "Target 192.0.2.1 300 B in, 0 B out in 3600 s",
            "User alice 0 B in, 29 B out in 3600 s",
            "Target 192.0.2.1 100 B in, 0 B out in 3600 s",
        ]
        assert there.of(MessageId.USER_SUMMARY)[1] == (
            "User alice 2.3 KiB in, 200 B out in 3600 s",
            6,
            {
                "MESSAGE_ID": "5a6a61a4427942eda71a270a9d42e7d0",
                "NETMOND_USER": "alice", "NETMOND_USER_UID": "1009", "NETMOND_PERIOD": "3600",
                "NETMOND_IN_PACKETS": "24", "NETMOND_IN_BYTES": "2400",
                "NETMOND_OUT_PACKETS": "2", "NETMOND_OUT_BYTES": "200",
            },
        )  # fmt: skip
        assert there.of(MessageId.TARGET_SUMMARY)[0][2]["NETMOND_TARGET"] == "192.0.2.1"

    def test_none(self) -> None:
        """summary = 0 means none, not even at the end."""
        there = Journal(summary=0)
        there.output.write(snapshot(1, users={1009: (1, 100, 1, 100)}))
        there.output.write(snapshot(99999, users={1009: (2, 200, 1, 100)}))
        there.output.close()

        assert there.of(MessageId.USER_SUMMARY) == []

    def test_after_a_restart(self) -> None:
        """What an earlier run counted, and told, is not told again; the period began with this run."""
        there = Journal(summary=60)
        for after, count in ((5000, 1000), (5061, 1029)):
            taken_up = snapshot(
                after, users={1009: (1, count, 1, 100)}, targets={"192.0.2.1": (1, 100, 0, 0)}
            )
            there.output.write(replace(taken_up, started=START + 5000))

        kinds = (MessageId.USER_SUMMARY, MessageId.TARGET_SUMMARY)
        assert [message for message, _, fields in there.sent if fields["MESSAGE_ID"] in kinds] == [
            "User alice 29 B in, 0 B out in 61 s"
        ]

    def test_clock_set_back(self) -> None:
        """A clock set back costs no summaries."""
        there = Journal()
        there.output.write(snapshot(4000, users={1009: (1, 100, 1, 100)}))
        there.output.write(snapshot(10, users={1009: (2, 200, 1, 100)}))

        assert [fields["NETMOND_PERIOD"] for _, _, fields in there.of(MessageId.USER_SUMMARY)] == [
            "4000",
            "0",
        ]


def test_control_characters_in_messages() -> None:
    """Text from elsewhere cannot move the cursor or begin a line; of fields the sender takes care."""
    there = Journal()
    reason = "bad\x1b[2J\nforged"
    there.output.write(snapshot(features=(Feature(name="meter", state=FeatureState.OFF, reason=reason),)))

    message, _, fields = there.of(MessageId.FEATURE)[0]
    assert message == "meter is off: bad\\x1b[2J\\nforged"
    assert fields["NETMOND_REASON"] == reason


class TestCatalogue:
    TEXT = CATALOG.read_text()

    def test_ids(self) -> None:
        """Every message is explained once, nothing else is, and ids are 128 bits that differ."""
        ids = re.findall(r"^-- ([0-9a-f]{32})$", self.TEXT, re.MULTILINE)

        assert sorted(ids) == sorted(MessageId)
        assert len({*MessageId}) == len(MessageId.__members__)

    def test_fields_exist(self) -> None:
        """Only documented fields are named."""
        documented = {*re.findall(r"\bNETMOND_[A-Z_]+", f"{journal.__doc__} {audit.__doc__}")}

        assert {*re.findall(r"@(\w+)@", self.TEXT)} - documented == set()

    def test_fields_are_there(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whatever an explanation names, each message of its kind has."""
        zero = (0, 0, 0, 0)
        caplog.set_level("INFO")
        there = Journal()
        loss = Loss(name="meter.no-slot", count=1, meaning="full")
        off = Feature(name="meter", state=FeatureState.OFF)
        ports = (TestRdma.PORT, TestRdma.SECOND)
        there.output.write(
            snapshot(1, targets={"192.0.2.1": zero}, features=(off,), losses=(loss,), rdma=Rdma(ports=ports))
        )
        there.output.write(
            snapshot(
                4000, targets={"192.0.2.2": (1, 1, 1, 1)}, users={1009: (1, 1, 1, 1)},
                rdma=Rdma(ports=(replace(ports[0], state="down"),)),
            )
        )  # fmt: skip
        there.output.close()
        reloaded([])
        audit.changed(1009, "/org/netmond1", "org.netmond1.Manager", "Reload", [])
        audit.denied(1009, "/org/netmond1", "org.netmond1.Manager", "Reload", "no")
        sent = [fields for _, _, fields in there.sent] + [vars(record) for record in caplog.records]

        entries = re.split(r"^-- ([0-9a-f]{32})$", self.TEXT, flags=re.MULTILINE)[1:]
        named = {
            id_: {*re.findall(r"@(\w+)@", text)}
            for id_, text in zip(entries[::2], entries[1::2], strict=True)
        }
        assert {fields["MESSAGE_ID"] for fields in sent} == {*MessageId}
        assert [named[fields["MESSAGE_ID"]] - fields.keys() for fields in sent] == [set()] * len(sent)

    @pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is not installed")
    def test_journalctl_takes_it(self, tmp_path: Path) -> None:
        """systemd's own parser reads the file and finds every message."""
        (tmp_path / "usr/lib/systemd/catalog").mkdir(parents=True)
        (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
        shutil.copy(CATALOG, tmp_path / "usr/lib/systemd/catalog")
        command = ["journalctl", f"--root={tmp_path}"]
        update = subprocess.run([*command, "--update-catalog"], check=True, capture_output=True, text=True)

        assert update.stderr == ""
        database = (tmp_path / "var/lib/systemd/catalog/database").read_bytes()
        assert all(bytes.fromhex(each) in database for each in MessageId)
