"""Where netmond reads what the kernel says: texts of /proc and /sys, netlink messages, cgroups, keys."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_network
from pathlib import Path

import pytest

from netmond.errors import KernelError, Unavailable
from netmond.kernel import devices, libbpf, netlink, tables
from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.programs import interface_unit, possible_cpus, socket_unit, target_capacity

_UNIFIED = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate
"""
_HYBRID = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 23 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:4 - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:5 - cgroup2 cgroup2 rw
33 31 0:29 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:6 - cgroup cgroup rw,memory
"""
_NONE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
33 31 0:29 / /sys/fs/cgroup/cgroup2 rw,relatime shared:6 - cgroup cgroup2 rw,memory
"""


class TestCgroups:
    """Where the hierarchy is, and what is in it."""

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            (_UNIFIED, "/sys/fs/cgroup"),
            (_HYBRID, "/sys/fs/cgroup/unified"),
            (_UNIFIED.replace("shared:4 ", ""), "/sys/fs/cgroup"),
            (_UNIFIED.replace("shared:4", "shared:4 master:1"), "/sys/fs/cgroup"),
            (_UNIFIED.replace("/sys/fs/cgroup", r"/mnt/my\040groups\134v2"), "/mnt/my groups\\v2"),
            (_UNIFIED.replace("/sys/fs/cgroup", "/mnt/größe"), "/mnt/größe"),
        ],
        ids=["unified", "hybrid", "no optional field", "two optional fields", "escapes", "letters"],
    )
    def test_mount_point(self, text: str, path: str) -> None:
        """It is the cgroup2 entry of mountinfo, with the kernel's octal escapes undone."""
        assert find_cgroup2(text) == Path(path)

    def test_none(self) -> None:
        """Without any the error says what to do; a v1 hierarchy of that name is not taken for one."""
        with pytest.raises(Unavailable, match=r"no cgroup2 hierarchy is mounted: .*mount -t cgroup2"):
            find_cgroup2(_NONE)

    def test_paths(self, tmp_path: Path) -> None:
        """A cgroup's id is its directory's inode number; paths begin at the hierarchy's root."""
        inner = tmp_path / "system.slice" / "web.service"
        inner.mkdir(parents=True)
        (inner / "cgroup.procs").touch()
        paths = CgroupPaths(tmp_path)

        ids = [path.stat().st_ino for path in (tmp_path, inner.parent, inner)]

        assert paths.look_up([*ids, 0]) == dict(
            zip(ids, ["/", "/system.slice", "/system.slice/web.service"], strict=True)
        )

    def test_a_path_outlives_its_cgroup(self, tmp_path: Path) -> None:
        """What a removed cgroup has counted keeps its name; a new one is found when it is asked for."""
        paths = CgroupPaths(tmp_path)
        old, new = tmp_path / "old", tmp_path / "new"
        old.mkdir()
        id_ = old.stat().st_ino
        paths.look_up([id_])
        old.rename(tmp_path / "gone")
        new.mkdir()

        assert paths.look_up([id_]) == {id_: "/old"}
        assert paths.look_up([new.stat().st_ino]) == {new.stat().st_ino: "/new"}

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        """A symbolic link cannot lead the walk out of the hierarchy, or in circles."""
        outside = tmp_path / "outside"
        root = tmp_path / "root"
        outside.mkdir()
        root.mkdir()
        (root / "link").symlink_to(outside)
        (root / "circle").symlink_to(root)

        assert CgroupPaths(root).look_up([outside.stat().st_ino]) == {}

    def test_no_hierarchy_any_more(self, tmp_path: Path) -> None:
        """A root that is gone finds nothing."""
        assert CgroupPaths(tmp_path / "missing").look_up([1]) == {}


@pytest.mark.parametrize(
    ("text", "cpus"), [("0\n", 1), ("0-7\n", 8), ("0-3,8-11\n", 12), ("0,2\n", 3), ("0-127", 128)]
)
def test_possible_cpus(text: str, cpus: int) -> None:
    """The length of the kernel's per-CPU arrays: up to the last CPU there may ever be, gaps included."""
    assert possible_cpus(text) == cpus


def test_possible_cpus_of_this_machine() -> None:
    """Never fewer than there are."""
    assert possible_cpus() >= (os.cpu_count() or 1)


@pytest.mark.parametrize(("limit", "capacity"), [(1, 128), (128, 128), (129, 256), (10_007, 10_112)])
def test_targets_fill_pages(limit: int, capacity: int) -> None:
    """Room for all, in whole pages, since counters are mapped by page."""
    assert target_capacity(limit) == capacity
    assert interface_unit(targets=limit, forwarded=8).defines["TARGETS"] == capacity


def test_units_to_compile() -> None:
    """Every name that is attached or opened is asked for, once."""
    for unit in (socket_unit(slots=16, peers=8), interface_unit(targets=8, forwarded=8)):
        names = [program.name for program in unit.programs]
        assert len(names) == len(set(names))
        assert len(unit.maps) == len(set(unit.maps))
    assert socket_unit(slots=16, peers=8).defines["SLOTS"] == 16


class TestNetlink:
    """Messages of netlink(7), as bytes."""

    #: Two of one dump: an empty body, and a body of 5 bytes with 3 of padding.
    TWO = (
        b"\x10\x00\x00\x00\x10\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00"
        b"\x15\x00\x00\x00\x14\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00hello\x00\x00\x00"
    )

    def test_messages(self) -> None:
        """Type and body of each, without the padding."""
        assert list(netlink.messages(self.TWO)) == [(16, b""), (20, b"hello")]

    def test_nothing(self) -> None:
        """No bytes, no messages."""
        assert list(netlink.messages(b"")) == []

    @pytest.mark.parametrize("length", range(1, len(TWO)))
    def test_cut_short(self, length: int) -> None:
        """Wherever data ends, parsing does, without an error and without inventing bytes."""
        found = list(netlink.messages(self.TWO[:length]))

        assert len(found) == (0 if length < 16 else 1 if length < 32 else 2)
        assert b"".join(body for _, body in found) == self.TWO[32 : min(length, 37)]

    @pytest.mark.parametrize("length", [0, 1, 15])
    def test_damaged_header(self, length: int) -> None:
        """A length that does not cover the header itself ends the parsing, or it would never end."""
        assert list(netlink.messages(struct.pack("=I", length) + self.TWO[4:])) == []

    def test_attributes(self) -> None:
        """By type without the flag bits, from an offset on, unpadded; of a repeated one the last."""
        data = (
            b"\xff\xff"  # before the offset
            b"\x07\x00\x03\x00lo\x00\x00"  # 3
            b"\x05\x00\x10\x80\x06\x00\x00\x00"  # 16, NLA_F_NESTED
            b"\x04\x00\x07\x40"  # 7, NLA_F_NET_BYTEORDER, empty
            b"\x05\x00\x10\x00\x02"  # 16 again, the end unpadded
        )

        assert netlink.attributes(data, 2) == {3: b"lo\0", 16: b"\2", 7: b""}

    @pytest.mark.parametrize("data", [b"", b"\x07\x00\x03", b"\x03\x00\x03\x00ab", b"\x00\x00\x00\x00" * 3])
    def test_damaged_attributes(self, data: bytes) -> None:
        """Too short for a header, or a length that does not cover it: nothing, and no endless loop."""
        assert netlink.attributes(data) == {}

    def test_an_attribute_cut_short(self) -> None:
        """What is there of it."""
        assert netlink.attributes(b"\x08\x00\x03\x00et") == {3: b"et"}

    def test_a_refusal(self) -> None:
        """An error answer is one line in the kernel's words."""
        with pytest.raises(KernelError, match=r"^netlink: Operation not supported$"):
            list(netlink.dump(netlink.ROUTE, 0x3FF2, bytes(16)))


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def link(
    *,
    name: bytes = b"veth7",
    arp: int = 1,
    index: int = 7,
    flags: int = 0x1043,
    state: int = 6,
    kind: bytes = b"veth",
) -> bytes:
    """The body of an RTM_NEWLINK message."""
    info = attribute(18, attribute(1, kind + b"\0")) if kind else b""
    return (
        struct.pack("=BxHiII", 0, arp, index, flags, 0)
        + attribute(3, name + b"\0")
        + attribute(16, bytes([state]))
        + attribute(23, struct.pack("=24Q", 11, 13, 1009, 2003, *range(20)))
        + info
    )


class TestDevices:
    """Interfaces as rtnetlink tells of them."""

    #: ip -d link show: "7: veth7: <BROADCAST,MULTICAST,UP,LOWER_UP> ... state UP ... link/ether ... veth"
    RECORDED = (
        b"\x00\x00"  # ifi_family, padding
        b"\x01\x00"  # ifi_type: ARPHRD_ETHER
        b"\x07\x00\x00\x00"  # ifi_index
        b"\x43\x10\x01\x00"  # ifi_flags
        b"\x00\x00\x00\x00"  # ifi_change
        b"\x0a\x00\x03\x00veth7\x00\x00\x00"  # IFLA_IFNAME
        b"\x05\x00\x10\x00\x06\x00\x00\x00"  # IFLA_OPERSTATE: up
        b"\x10\x00\x12\x80"  # IFLA_LINKINFO, nested
        b"\x09\x00\x01\x00veth\x00\x00\x00\x00"  # IFLA_INFO_KIND
        b"\x0a\x00\x01\x00\x02\x00\x00\x00\x00\x07\x00\x00"  # IFLA_ADDRESS
        b"\x08\x00\x05\x00\x06\x00\x00\x00"  # IFLA_LINK: 6
        b"\x08\x00\x0a\x00\x09\x00\x00\x00"  # IFLA_MASTER: 9
        b"\x44\x00\x17\x00"  # IFLA_STATS64, its beginning
        b"\x0b\x00\x00\x00\x00\x00\x00\x00"  # rx_packets: 11
        b"\x0d\x00\x00\x00\x00\x00\x00\x00"  # tx_packets: 13
        b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # rx_bytes: 1009
        b"\xd3\x07\x00\x00\x00\x00\x00\x00"  # tx_bytes: 2003
        b"\x00\x00\x00\x00\x00\x00\x00\x00"  # rx_errors
        b"\x00\x00\x00\x00\x00\x00\x00\x00"  # tx_errors
        b"\x02\x00\x00\x00\x00\x00\x00\x00"  # rx_dropped: 2
        b"\x05\x00\x00\x00\x00\x00\x00\x00"  # tx_dropped: 5
    )

    def test_a_recorded_message(self) -> None:
        """All that is known of an interface, from one message."""
        device = devices._device(self.RECORDED)

        assert (device.info.name, device.info.index, device.info.kind, device.info.state) == (
            "veth7",
            7,
            "veth",
            "up",
        )
        assert {name: count for name, count in device.info.kernel.items() if count} == {
            "rx_packets": 11,
            "tx_packets": 13,
            "rx_bytes": 1009,
            "tx_bytes": 2003,
            "rx_dropped": 2,
            "tx_dropped": 5,
        }
        assert (device.address, device.link, device.master) == (b"\2\0\0\0\0\7", 6, 9)
        assert (device.link_header, device.loopback, device.info.monitored) == (14, False, False)

    def test_a_link_elsewhere(self) -> None:
        """The number of an interface in another namespace means nothing here."""
        elsewhere = self.RECORDED + b"\x08\x00\x25\x00\x00\x00\x00\x00"  # IFLA_LINK_NETNSID

        assert devices._device(elsewhere).link == 0

    @pytest.mark.parametrize(
        ("answer", "kind", "link_header", "loopback"),
        [
            (link(), "veth", 14, False),
            (link(name=b"lo", arp=772, flags=0x49, kind=b""), "loopback", 14, True),
            (link(name=b"tun0", arp=65534, kind=b"tun"), "tun", 0, False),
            (link(name=b"no-such-device", kind=b""), "virtual", 14, False),
        ],
    )
    def test_kinds(self, answer: bytes, kind: str, link_header: int, loopback: bool) -> None:
        """What it is, and how long the header is that its frames begin with."""
        device = devices._device(answer)

        assert (device.info.kind, device.link_header, device.loopback) == (kind, link_header, loopback)

    @pytest.mark.parametrize(("number", "state"), [(0, "unknown"), (2, "down"), (6, "up"), (7, "unknown")])
    def test_states(self, number: int, state: str) -> None:
        """In the kernel's words; one that a later kernel adds is unknown."""
        assert devices._device(link(state=number)).info.state == state

    def test_a_name_that_is_no_text(self) -> None:
        """Names are bytes to the kernel; here they are valid text."""
        assert devices._device(link(name=b"et\xff")).info.name == "et\N{REPLACEMENT CHARACTER}"

    def test_this_machine(self) -> None:
        """The loopback exists everywhere, under its own index."""
        found = devices.devices()[socket.if_nametoindex("lo")]

        assert (found.info.name, found.info.kind, found.loopback) == ("lo", "loopback", True)


@pytest.mark.parametrize(
    ("network", "key"),
    [
        ("192.0.2.1", b"\x20\x00\x00\x00\xc0\x00\x02\x01"),
        ("198.51.100.0/24", b"\x18\x00\x00\x00\xc6\x33\x64\x00"),
        ("0.0.0.0/0", b"\x00\x00\x00\x00\x00\x00\x00\x00"),
        ("2001:db8::/33", b"\x21\x00\x00\x00\x20\x01\x0d\xb8" + bytes(12)),
    ],
)
def test_trie_keys(network: str, key: bytes) -> None:
    """struct target4_key and target6_key: the length in host order, then the address as on the wire."""
    assert tables._trie_key(ip_network(network)).tobytes() == key


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "not permitted: netmond needs CAP_BPF"),
        (13, "CAP_NET_ADMIN"),
        (524, "not supported by this"),
        (28, "No space"),
    ],
)
def test_errors_of_libbpf(code: int, said: str) -> None:
    """One line, with the remedy where there is a usual one; also for numbers without words in C."""
    assert said in libbpf.explain(code)
