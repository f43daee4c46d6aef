"""Who sees what: everybody the own figures, root and the group everybody's."""

from __future__ import annotations

import grp

import pytest

from tests.kernel.conftest import Scene
from tests.kernel.running import Netmond

GROUP = grp.getgrgid(37).gr_name  # one that every Debian has; 37 is "operator"
ALICE, BOB, STRANGER = 5, 9, 65534  # a bus lets only users of the machine connect: games, news, nobody


@pytest.fixture(scope="module")
def netmond(shared: Scene) -> Netmond:
    """A daemon that has seen alice and bob, and forwarded nothing."""
    netmond = shared.netmond(config={"access.group": GROUP, "targets.addresses": ["10.23.1.2"]})
    port = shared.server().do("echo_server", local=["10.23.1.2", 0])
    for uid, count in ((ALICE, 23), (BOB, 29)):
        user = shared.user(uid)
        user.do("udp", name="a", peer=["10.23.1.2", port])
        user.do("exchange", name="a", count=count, size=101)
    netmond.settle()
    return netmond


@pytest.mark.parametrize("what", ["users", "processes", "flows"])
def test_alice_sees_herself(netmond: Netmond, what: str) -> None:
    """Rows of her own, whatever the list, and a note that it is not all; asking for bob's is refused."""
    said = netmond.ctl(what, "--json=short", uid=ALICE)

    assert said.code == 0
    assert "own figures only" in said.err
    assert {row["uid"] for row in netmond.json(what, uid=ALICE)} == {ALICE}
    assert {row["in_packets"] for row in netmond.json(what, uid=ALICE)} == {23}
    assert netmond.ctl(what, "--all", uid=ALICE).code == 4


def test_alices_part_of_a_unit(netmond: Netmond, shared: Scene) -> None:
    """Of a unit that bob uses, too, she sees her own part."""
    (row,) = netmond.json("units", uid=ALICE)
    (whole,) = netmond.json("units")

    assert (row["unit"], row["in_packets"]) == (shared.unit.name, 23)
    assert whole["in_packets"] == 52


def test_user_page(netmond: Netmond) -> None:
    """Her own page is hers, bob's is not."""
    assert netmond.json("user", str(ALICE), uid=ALICE)["in_packets"] == 23
    assert netmond.ctl("user", str(BOB), uid=ALICE).code == 4
    assert netmond.ctl("flows", "--user", str(BOB), uid=ALICE).code == 4


def test_somebody_without_traffic(netmond: Netmond) -> None:
    """Empty lists, not an error; status and interfaces are for everybody."""
    for what in ("users", "units", "processes", "flows"):
        assert netmond.json(what, uid=STRANGER) == []
    assert netmond.ctl("status", uid=STRANGER).code == 0
    assert netmond.ctl("interfaces", uid=STRANGER).code == 0
    assert netmond.ctl("target", "list", uid=STRANGER).code == 4


@pytest.mark.parametrize(("uid", "groups"), [(0, []), (STRANGER, [37])], ids=["root", "member"])
def test_root_and_the_group_see_all(netmond: Netmond, uid: int, groups: list[int]) -> None:
    """Everybody's rows, and targets; the group may change things, too."""
    rows = netmond.json("users", uid=uid, groups=groups)

    assert {row["uid"]: row["in_packets"] for row in rows} == {ALICE: 23, BOB: 29}
    assert {row["uid"] for row in netmond.json("flows", uid=uid, groups=groups)} == {ALICE, BOB}
    assert [row["in_packets"] for row in netmond.json("target", "list", uid=uid, groups=groups)] == [52]
    assert netmond.ctl("target", "add", "192.0.2.7", uid=uid, groups=groups).code == 0
    assert netmond.ctl("target", "remove", "192.0.2.7", uid=uid, groups=groups).code == 0
