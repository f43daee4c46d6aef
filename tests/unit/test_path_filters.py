"""What a path shall show, as far as names go."""

from __future__ import annotations

import pytest

from netmond.errors import InvalidArgs
from netmond.path.filters import known_stages


def test_stages() -> None:
    names = ("kfree_skb", "kprobe:tcp_v4_do_rcv")
    assert known_stages(names) == names


@pytest.mark.parametrize("name", ["", "ip_rcv\n", "kprobe:kfree_skb", "kprobe:", "no:ip_rcv", "a:b:c"])
def test_no_such_stage(name: str) -> None:
    with pytest.raises(InvalidArgs, match="there is no"):
        known_stages([name])
