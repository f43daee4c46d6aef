"""What the benchmarks make of their samples: arithmetic, verdicts, the table. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import record
from bench.samples import Interval, against_itself, among, exponent, interval, ratios
from bench.table import HEADINGS, AtLeast, AtMost, Row, Verdict, table

ROOT = Path(__file__).parents[2]


def row(samples: list[float], peer: list[float], budget: AtMost | AtLeast | None = None) -> Row:
    return Row(what="it", samples=samples, unit="ns", against="other", peer=peer, budget=budget)


# -- samples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "left_out"),
    [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (21, 5), (30, 9), (51, 18)],
)
def test_the_interval_leaves_out_what_tables_of_the_sign_test_say(count: int, left_out: int) -> None:
    """At either end; with fewer than nine samples nothing can be left out."""
    assert interval(range(count)) == Interval(left_out, count - 1 - left_out)


def test_one_wild_sample_does_not_move_the_interval() -> None:
    """Order statistics: how far out it lies makes no difference."""
    assert interval([*range(1, 21), 21]) == interval([*range(1, 21), 10**9])


def test_samples_taken_in_turn_are_compared_pair_by_pair() -> None:
    """What slows the machine down for a while slows both of a pair."""
    assert ratios([2, 20, 200], [1, 10, 100]) == [2, 2, 2]


def test_samples_of_different_number_are_compared_by_their_medians() -> None:
    """There are no pairs then."""
    assert ratios([3, 4, 5], [2, 2]) == [2]


def test_a_steady_drift_cancels_out() -> None:
    """Each sample is compared with what was measured before and after it, as is the peer with itself."""
    off, on = [100, 110, 120, 130], [105, 115, 125]

    assert among(on, off) == [1, 1, 1]
    assert against_itself(off) == [1, 1]


def test_two_samples_of_the_peer_have_none_between_them() -> None:
    """Its noise is not known then."""
    assert against_itself([1, 2]) == []


@pytest.mark.parametrize(("ratio", "grows"), [(1, 0), (10, 1), (100, 2)])
def test_the_exponent_is_that_of_the_power_law(ratio: float, grows: float) -> None:
    """Ten times the load, ten times the cost: in proportion."""
    assert exponent(ratio, 10) == pytest.approx(grows)


# -- verdicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([48.0, 49.0, 50.0], Verdict.MET),
        ([51.0, 52.0, 53.0], Verdict.MISSED),
        ([49.0, 49.0, 51.0], Verdict.NOISY),
    ],
)
def test_a_budget_is_met_or_missed_if_the_whole_interval_is(samples: list[float], verdict: Verdict) -> None:
    """Otherwise nobody can say."""
    assert row(samples, [1.0], AtMost(50)).verdict is verdict


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([97.0, 98.0, 99.0], Verdict.MET),
        ([95.0, 96.0, 96.9], Verdict.MISSED),
        ([96.0, 98.0, 99.0], Verdict.NOISY),
    ],
)
def test_a_budget_may_be_one_of_the_ratio(samples: list[float], verdict: Verdict) -> None:
    """And a lower bound."""
    assert row(samples, [100.0] * 3, AtLeast(0.97, of_ratio=True)).verdict is verdict


def test_a_miss_that_looks_like_the_peers_own_noise_is_none() -> None:
    """The peer compared with itself strays as far from 1."""
    samples, peer, budget = [90.0, 91.0, 92.0], [100.0] * 3, AtLeast(0.97, of_ratio=True)
    quiet = Row(
        what="it", samples=samples, unit="", against="off", peer=peer, noise=[0.99, 1.0, 1.01], budget=budget
    )
    noisy = Row(
        what="it", samples=samples, unit="", against="off", peer=peer, noise=[0.9, 1.0, 1.1], budget=budget
    )

    assert quiet.verdict is Verdict.MISSED
    assert noisy.verdict is Verdict.NOISY
    assert "the peer itself" in noisy.cells()[-1]


@pytest.mark.parametrize(
    ("others", "verdict"), [(0.1, Verdict.MISSED), (1.5, Verdict.NOISY), (None, Verdict.MISSED)]
)
def test_a_miss_of_time_is_none_on_a_busy_machine(others: float | None, verdict: Verdict) -> None:
    """Of anything else, as memory, it is one."""
    missed = replace(row([60.0], [1.0], AtMost(50)), others=others)

    assert missed.verdict is verdict


def test_a_budget_met_on_a_busy_machine_is_met() -> None:
    """It can only be better on a quiet one."""
    assert replace(row([40.0], [1.0], AtMost(50)), others=1.5).verdict is Verdict.MET


def test_without_a_budget_nothing_is_said() -> None:
    """Neither met nor missed."""
    assert row([1.0], [2.0]).cells()[5:] == ("", "")


# -- the table ---------------------------------------------------------------------------------------


def test_a_row_says_figure_peer_ratio_interval_budget_and_verdict() -> None:
    """In the order of the headings."""
    cells = row([25.0, 25.0, 26.0], [100.0, 100.0, 104.0], AtMost(50)).cells()

    assert dict(zip(HEADINGS, cells, strict=True)) == {
        "what": "it",
        "netmond": "25.0 ns",
        "against": "other: 100.0",
        "ratio (95 %)": "0.25 = 1/4.0 (0.25 … 0.25)",
        "peer against itself": "",
        "budget": "≤ 50 ns",
        "": "met",
    }


def test_an_undecided_row_says_why() -> None:
    """With the figures that leave it open."""
    assert row([49.0, 49.0, 51.0], [1.0], AtMost(50)).cells()[-1] == (
        "too noisy to say: 49 … 51 lies on both sides of 50"
    )


def test_all_lines_of_the_table_are_equally_long() -> None:
    """It is read in terminals, too."""
    lines = table([row([1.0], [2.0]), row([12345.0], [1.0], AtMost(3))]).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4


def test_json_has_everything_with_the_samples() -> None:
    """For whoever wants to reckon differently."""
    told = json.loads(json.dumps(row([1.0, 3.0], [2.0, 2.0], AtMost(4)).to_json()))

    assert told["samples"] == [1.0, 3.0]
    assert told["ratio_interval"] == [0.5, 1.5]
    assert told["verdict"] == "met"


# -- the record and the command --------------------------------------------------------------------------


def test_the_record_holds_machine_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file, which the next run replaces."""
    monkeypatch.setattr(record, "RESULTS", tmp_path / "RESULTS.md")

    record.write([row([1.0], [2.0])], record.machine())

    written = (tmp_path / "RESULTS.md").read_text()
    assert written.startswith("# Results of the benchmarks")
    assert all(f"- {name}: " in written for name in ("date", "commit", "processor", "kernel", "release"))
    assert "| it " in written


def test_the_list_names_each_benchmark_with_a_line() -> None:
    """Without root, without measuring anything."""
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())

    named = (
        "meter logged interfaces packet packetlog capture path rdma throughput tick footprint start bus csv"
    )
    assert set(named.split()) == lines.keys()
    assert all(said.endswith(".") for said in lines.values())
