"""`~` simulated through what a run goes through: the product's dice, its ledger, its judge. As right as it says?

`test_statistics` shows the law exactly. Here many runs are thrown and judged, each with a seed of its own. The
seeds are fixed, so nothing fails by luck; the bounds are those of the exact law all the same, at one in a million.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
from scipy import stats

from testbed.conditions.condition import Condition
from testbed.conditions.fate import FATE_VERSION, Stream
from testbed.conditions.shape import lost
from testbed.expect import compare
from testbed.expect.compare import Found
from testbed.judge import judge
from testbed.measure import statistics
from testbed.measure.records import ProgramRecord, Records
from testbed.measure.samples import Counts
from testbed.plan import Plan, plan
from testbed.scenario import parse
from tests.command import said, testbed
from tests.judge.good_run import MS, crossing, proof

TEXT = """
testbed: 1
about: One way, and some of it is lost.
hosts:
  sensor: {run: "true"}
  collector:
links: {sensor -> collector: {loss: LOSS}}
expect:
"""
ASKED = {0.5: "50 %", 0.2: "20 %", 0.1: "10 %"}
AT = 0.05  # a level at which a few hundred runs say something


def planned(loss: float, *asked: float) -> Plan:
    lines = "".join(f"  - sensor->collector.loss_ratio ~ {ASKED[p]}\n" for p in asked)
    return plan(parse(TEXT.replace("LOSS", f"{100 * loss:g} %") + lines, "one-way.yaml"), None)


def outcome(made: Plan, seed: int, count: int) -> str:
    """Of the whole run with that seed in which so many datagrams entered the link."""
    made = replace(made, seed=seed)
    ledger = list(crossing(seed, made.links[0], count))
    program = ProgramRecord("sensor.sensor", "run", 900 * MS, None, 1800 * MS, 0)
    records = Records(
        FATE_VERSION, seed, {program.id: program}, {host.name: {} for host in made.hosts}, ledger,
        proof(made, ledger), 0, (2000 + count) * MS, complete=True,
    )  # fmt: skip
    found = judge(made, records)
    assert found.outcome != "error", found.reason
    (verdict,) = (verdict for verdict in found.verdicts if not verdict.implied)
    return verdict.outcome


def outcomes(loss: float, asked: float, count: int, runs: int) -> Counter[str]:
    made = planned(loss, asked)
    return Counter(outcome(made, seed, count) for seed in range(1, runs + 1))


def losses(p: float, count: int, runs: int) -> list[int]:
    """How many of `count` datagrams the dice lose, for each of so many seeds."""
    condition = Condition(loss_ratio=p)
    streams = (iter(Stream(seed, "sensor->collector over lan", "udp *1>9000")) for seed in range(1, runs + 1))
    return [sum(lost(draws, condition) for draws in islice(stream, count)) for stream in streams]


def compared(x: int, count: int, p: float) -> str:
    """What `~` says of x of count."""
    return compare.binomial(Found(Counts(x, count), "ratio", "x"), Found(p, "ratio"))[0]


# at most so many false alarms


@pytest.mark.parametrize(("p", "count", "runs"), [(0.5, 195, 1000), (0.1, 300, 600), (0.01, 900, 300)])
def test_the_dice_are_alarming_as_often_as_the_exact_law_says(p: float, count: int, runs: int) -> None:
    """At 5 % and at one in a million; and all of what was lost is spread as a binomial law spreads it."""
    found = losses(p, count, runs)
    for alpha in (AT, statistics.ALPHA):
        chance = statistics.rejects(count, p, p, alpha)
        assert chance <= alpha
        alarms = sum(statistics.two_sided(x, count, p) <= alpha for x in found)
        fewest, most = statistics.acceptance(runs, chance)
        assert fewest <= alarms <= most, f"{alarms} of {runs} at {alpha}, not {fewest} to {most}"
    false = sum(times for x, times in Counter(found).items() if compared(x, count, p) == "fail")
    assert false <= statistics.acceptance(runs, statistics.ALPHA)[1], f"{false} false alarms in {runs} runs"
    cuts = [-1, *sorted({int(stats.binom.ppf(q / 20, count, p)) for q in range(1, 20)}), count]
    seen = [sum(low < x <= high for x in found) for low, high in pairwise(cuts)]
    law = [stats.binom.cdf(high, count, p) - stats.binom.cdf(low, count, p) for low, high in pairwise(cuts)]
    alike = stats.chisquare(seen, [runs * part for part in law]).pvalue
    assert 1e-6 < alike < 1 - 1e-6, f"{seen}, not {[round(runs * part) for part in law]}"


@pytest.mark.parametrize(("p", "runs"), [(0.5, 150), (0.2, 40), (0.1, 15)])
def test_what_is_true_passes(p: float, runs: int) -> None:
    found = outcomes(p, p, statistics.needed(p), runs)
    most = statistics.acceptance(runs, statistics.ALPHA)[1]
    assert set(found) <= {"pass", "fail"} and found["fail"] <= most, found


def test_what_the_judge_says_is_what_the_comparison_says() -> None:
    """So that the law of the one is that of the other."""
    made = planned(0.3, 0.5)
    told = []
    for seed, x in enumerate(losses(0.3, 200, 30), 1):
        told.append(compared(x, 200, 0.5))
        assert outcome(made, seed, 200) == told[-1]
    assert set(told) == {"pass", "fail"}, "both were seen"


# and at least such power


@pytest.fixture(scope="module")
def needed(tmp_path_factory: pytest.TempPathFactory) -> dict[float, int]:
    """What `testbed check` says beforehand."""
    file: Path = tmp_path_factory.mktemp("check") / "one-way.yaml"
    lines = "".join(f"  - sensor->collector.loss_ratio ~ {asked}\n" for asked in ASKED.values())
    file.write_text(TEXT.replace("LOSS", "10 %") + lines)
    done = testbed("check", file)
    assert done.returncode == 0, said(done)
    found = re.findall(r"~ (\d+) % needs ([\d,]+) packets or more", done.stdout)
    return {int(percent) / 100: int(count.replace(",", "")) for percent, count in found}


@pytest.mark.parametrize(("p", "runs"), [(0.5, 150), (0.2, 40), (0.1, 15)])
def test_half_and_twice_are_found_out_as_often_as_promised(p: float, runs: int, needed: dict[float, int]) -> None:
    for truth in (p / 2, 2 * p):
        found = outcomes(truth, p, needed[p], runs)
        promised = statistics.acceptance(runs, statistics.POWER)[0]
        assert set(found) <= {"pass", "fail"} and found["fail"] >= promised, (
            f"{found}, at least {promised} promised"
        )
        power = statistics.rejects(needed[p], p, truth)
        assert power >= statistics.POWER
        assert statistics.at_most(found["fail"], runs, power) > 1e-6, f"{found}, and the law says {power}"


def test_fewer_than_needed_decide_nothing_unless_they_reject(needed: dict[float, int]) -> None:
    assert set(outcomes(0.1, 0.1, needed[0.1] // 2, 8)) == {"inconclusive"}
    assert set(outcomes(0.5, 0.1, 100, 8)) == {"fail"}
