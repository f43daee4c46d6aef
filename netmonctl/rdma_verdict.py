"""How an RDMA port fares, by its counters: healthy or what ails it, why in figures, and where to look. Pure.

Verdicts are monotone: a counter of trouble that is higher never makes a port healthier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from netmonctl.render import Row, duration

#: Of a thousand notifications a second each millisecond has one. A sender that follows DCQCN (Zhu et al.,
#: Congestion Control for Large-Scale RDMA Deployments, SIGCOMM 2015) needs 5 periods of 55 microseconds
#: without one before it goes faster again: with these it is slowed down all the time.
CNP_RATE = 1000.0
#: Share of packets that switches marked. Those of that paper mark 1 % at most while their queue is below its
#: upper limit: a tenth of it is not chance.
MARKED_SHARE = 0.001
#: Share of a port's time that it waited for credits, by its ticks and the words that it sent: a tick is
#: about the time of a word. Ours; InfiniBand has no notification packets.
WAIT_SHARE = 0.1
#: Lost packets in a packet. RoCE sends all again from the lost packet on; above 1 in 100,000 it is commonly
#: found to lose throughput.
LOSS_SHARE = 0.00001
#: RNR NAKs a second. Each stops a queue pair for the time that the receiver asks for, which is 0.64 ms
#: with NCCL (min_rnr_timer 12): 16 are one percent of the time.
RNR_RATE = 16.0
#: Errors of the line in a day or, on the first, in all: what error_thresholds of infiniband-diags suggests.
ERRORS_A_DAY = 10

_DAY = 86400.0
_WORD = 4

#: By role, what drivers call them: mlx5, the same by its optional counters, bnxt_re, irdma. Each of a set
#: counts others than the rest of it; two sets may count the same.
_CNPS_RECEIVED = (
    {"rp_cnp_handled", "rp_cnp_ignored"}, {"cc_rx_cnp_pkts"}, {"rx_cnp_pkts"}, {"cnpHandled", "cnpIgnored"},
)  # fmt: skip
_CNPS_SENT = ({"np_cnp_sent"}, {"cc_tx_cnp_pkts"}, {"tx_cnp_pkts"}, {"cnpSent"})
_MARKED = ({"np_ecn_marked_roce_packets"}, {"cc_rx_ce_pkts"}, {"rx_ecn_marked_pkts"}, {"RxECNMrkd"})
_WAIT = ({"port_xmit_wait"},)

SWITCH = "look at PFC and ECN of the switch port"
LINE = "look at cable, connectors and transceivers"
DROPS = "look at drops and PFC of the switch ports on the way, and at the cable"
RECEIVER = "look at who receives: it posts its buffers too late"
NOT_UP = "look at the cable, and whether the interface is up"
NO_MANAGER = "look at the subnet manager: it has not configured the port"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`state` is one of STATES; `reason` says why, in figures; `look_at` what to do next, if anything.

    more: reasons of a milder state that hold, too
    """

    state: str
    reason: str
    look_at: str = ""
    more: tuple[str, ...] = ()

    @property
    def severity(self) -> int:
        return STATES.index(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A port, its counters, seconds that totals and rates were taken over; all as netmond tells them."""

    port: Row
    counters: Sequence[Row]
    watched: float
    interval: float

    @property
    def lately(self) -> str:
        return f"in the last {self.interval:.1f} s"

    def rate(self, role: Iterable[set[str]]) -> float:
        """Of what counters in a role count, per second."""
        return max(
            math.fsum(row["rate"] for row in self.counters if row["counter"] in names) for names in role
        )

    def worst(self, *kinds: str) -> tuple[str, float]:
        """The counter of these kinds that grows fastest, and its rate: one loss moves several."""
        rates = [(row["rate"], row["counter"]) for row in self.of(*kinds)]
        rate, name = max(rates, default=(0.0, ""))
        return name, rate

    def of(self, *kinds: str) -> list[Row]:
        """The counters of these kinds, of packets or events: bytes of them would be more, and say less."""
        return [row for row in self.counters if row["kind"] in kinds and row["unit"] != "bytes"]


def judge(figures: Figures) -> Verdict:
    """The worst that holds, and after it what holds beside it."""
    found = [(state, *said) for state, rule in _RULES if (said := rule(figures)) is not None]
    if found:
        state, reason, look_at = found[0]
        more = tuple(f"{milder}: {also}" for milder, also, _ in found[1:])
        return Verdict(state=state, reason=reason, look_at=look_at, more=more)
    if not figures.counters:
        return Verdict(state="unknown", reason="the device has no counters")
    if not figures.interval:
        return Verdict(state="unknown", reason="its counters have been read only once")
    return Verdict(state="healthy", reason=_calm(figures))


def _calm(figures: Figures) -> str:
    """What is not zero all the same."""
    name, rate = figures.worst("retransmits", "order", "timeouts", "rnr", "discards")
    if rate:
        return f"{name} {count(rate)}/s {figures.lately}, which is little"
    total, name = max(((row["total"], row["counter"]) for row in figures.of(*_TROUBLE)), default=(0, ""))
    before = f"; before that {name} counted {total:,}" if total else ", nor before"
    return f"no trouble {figures.lately}{before}"


#: What a rule says if it applies: the reason, and where to look.
_Said = tuple[str, str] | None


def _down(figures: Figures) -> _Said:
    state, physical = str(figures.port["state"]), str(figures.port.get("physical_state", ""))
    if state == "active":
        return None
    waiting = physical == "link-up" and figures.port.get("link_layer") == "InfiniBand"
    return f"the port is {', '.join(filter(None, (state, physical)))}", NO_MANAGER if waiting else NOT_UP


def _faulty(figures: Figures) -> _Said:
    """By totals: such errors are rare, and none of them is in order."""
    days = max(1.0, figures.watched / _DAY)
    errors = [
        (row["total"], row["counter"]) for row in figures.of("link", "errors") if row["group"] == "counters"
    ]
    total, name = max(errors, default=(0, ""))
    if total < ERRORS_A_DAY * days:
        return None
    return f"{name} counted {total:,} in {duration(max(1.0, figures.watched))}", LINE


def _lossy(figures: Figures) -> _Said:
    timeout, stalls = figures.worst("timeouts")
    if stalls:
        return f"{timeout} {count(stalls)}/s {figures.lately}: a queue pair stood still meanwhile", DROPS
    name, lost = figures.worst("retransmits", "order", "discards")
    packets = _packets(figures, "in") + _packets(figures, "out")
    share = lost / packets if packets else math.inf
    if not lost or share < LOSS_SHARE:
        return None
    of = f", {percent(share)} of packets" if packets else ""
    return f"{name} {count(lost)}/s {figures.lately}{of}", DROPS


def _starved(figures: Figures) -> _Said:
    name, rate = figures.worst("rnr")
    return None if rate < RNR_RATE else (f"{name} {count(rate)}/s {figures.lately}", RECEIVER)


def _congested(figures: Figures) -> _Said:
    received, sent = figures.rate(_CNPS_RECEIVED), figures.rate(_CNPS_SENT)
    marked, arrived = figures.rate(_MARKED), _packets(figures, "in")
    waited, words = figures.rate(_WAIT), figures.port.get("out_byte_rate", 0.0) / _WORD
    share = marked / arrived if arrived else 0.0
    waiting = waited / (waited + words) if waited else 0.0
    too_much = (received >= CNP_RATE, sent >= CNP_RATE, share >= MARKED_SHARE, waiting >= WAIT_SHARE)
    if not any(too_much):
        return None
    parts = (
        (received, f"{count(received)} CNPs/s received"),
        (sent, f"{count(sent)} CNPs/s sent"),
        (share, f"{percent(share)} of packets marked"),
        (waiting, f"{percent(waiting)} of the time waiting for credits"),
    )
    first, *others = [text for figure, text in parts if figure]
    return ", ".join([f"{first} {figures.lately}", *others]), SWITCH


def _packets(figures: Figures, side: str) -> float:
    return float(figures.port.get(f"{side}_packet_rate", 0.0))


#: The worst first.
_RULES: tuple[tuple[str, Callable[[Figures], _Said]], ...] = (
    ("down", _down),
    ("faulty", _faulty),
    ("lossy", _lossy),
    ("starved", _starved),
    ("congested", _congested),
)
#: From best to worst; unknown is what nothing is known against.
STATES = ("unknown", "healthy", *(state for state, _ in reversed(_RULES)))
_TROUBLE = ("retransmits", "order", "timeouts", "rnr", "discards", "errors", "link")


def count(per_second: float) -> str:
    """Events a second: one decimal while that says something."""
    return f"{per_second:.1f}" if 0 < per_second < 100 else f"{per_second:,.0f}"


def percent(share: float) -> str:
    """With two digits that count."""
    return f"{100 * share:.2g} %" if share < 1 else f"{100 * share:.0f} %"


#: By state: when a port is in it. From good to bad.
MEANINGS = {
    "healthy": "none of what follows",
    "congested": (
        f"{CNP_RATE:,.0f} congestion notifications (CNP) or more were received or sent in a second, or "
        f"switches had marked {percent(MARKED_SHARE)} of the packets received or more, or the port waited "
        f"for credits {percent(WAIT_SHARE)} of the time or more"
    ),
    "starved": (
        f"{RNR_RATE:.0f} times a second or more a packet found no buffer that its receiver had posted "
        "(receiver not ready, RNR)"
    ),
    "lossy": (
        f"one in {1 / LOSS_SHARE:,.0f} packets or more was lost, by a counter of what is sent again, out of "
        "sequence or discarded; or a single acknowledgement did not come in time"
    ),
    "faulty": (
        f"a counter of errors of the line reached {ERRORS_A_DAY} in all on the first day that netmond "
        f"watches, or {ERRORS_A_DAY} a day since"
    ),
    "down": "the port is not active",
    "unknown": "the device has no counters, or they have been read only once",
}
