"""From a program's output to samples: records, units, declared metrics, and what every program has."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.metrics import BUILT_IN, Declared, built_in, report
from testbed.measure.records import ProgramRecord
from testbed.measure.samples import Counts, Samples, TooFew, Value, aggregate, numbers


def printed(*lines: object) -> ProgramRecord:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    return ProgramRecord("host.program", "run", 100, None, 350, 0, stdout=text.encode())


def samples(*lines: object) -> dict[str, Samples]:
    return report(printed(*lines)).samples


# ---------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("key", "written", "name", "dimension", "value"),
    [
        ("lost", 3, "lost", "number", 3),
        ("delay_ns", 7, "delay", "time", 7),
        ("delay_us", 7, "delay", "time", 7_000),
        ("delay_ms", 40.123456, "delay", "time", 40_123_456),
        ("delay_s", 1.5, "delay", "time", 1_500_000_000),
        ("payload_bytes", 10**12, "payload", "size", 10**12),
        ("goodput_bit_s", 2e9, "goodput", "rate", 2 * 10**9),
        ("share", 0.1, "share", "number", Fraction(1, 10)),
        ("bytes", 3, "bytes", "size", 3),  # called like its unit, it has that
        ("seconds", 1.5, "seconds", "time", 1_500_000_000),
        ("ms", 4, "ms", "time", 4_000_000),
        ("bit_s", 10**6, "bit_s", "rate", 10**6),
        ("s", 4, "s", "number", 4),  # a letter that may mean anything
        ("ratio", 3.5, "ratio", "number", Fraction(7, 2)),  # of what to what, nobody knows
        ("error", "EPERM", "error", "text", "EPERM"),
        ("whole", True, "whole", "text", "true"),
        ("_ms", 4, "_ms", "number", 4),
        ("offset_ms", -2, "offset", "time", -2_000_000),
    ],
)
def test_a_key_gives_name_dimension_and_value(
    key: str, written: object, name: str, dimension: str, value: Value
) -> None:
    found = samples({key: written})
    assert found == {name: Samples(dimension, [value])}  # type: ignore[arg-type]


def test_a_ratio_has_its_full_name_and_the_one_without_unit() -> None:
    found = samples({"loss_ratio": {"count": 101, "of": 1000}}, {"busy_ratio": 0.12})
    assert found["loss_ratio"] == found["loss"] == Samples("ratio", [Counts(101, 1000)])
    assert found["busy_ratio"].values == [Fraction(12, 100)]


def test_the_short_name_of_a_ratio_never_hides_a_metric_of_that_name() -> None:
    found = samples({"reordered_ratio": {"count": 1, "of": 4}}, {"reordered": 1})
    assert found["reordered"] == Samples("number", [1])
    assert found["reordered_ratio"] == Samples("ratio", [Counts(1, 4)])


def test_each_record_is_one_sample_in_the_order_of_printing() -> None:
    found = samples({"delay_ms": 3}, "not a record", {"delay_ms": 1, "n": 9}, {"delay_us": 2000})
    assert found["delay"].values == [3_000_000, 1_000_000, 2_000_000]
    assert found["n"].values == [9]


@pytest.mark.parametrize(
    "line",
    ["", "READY", "[1, 2]", '"text"', "{", '{"a": }', '{"a": NaN}', '{"a": Infinity}', "{'a': 1}", "{" * 100_000,
     '{"a": ' * 100_000 + "1" + "}" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": null}', '{"a": [1]}',
     '{"a": {"b": 1}}', "x {}", '{"a": 1} x'],
)  # fmt: skip
def test_what_is_no_record_is_left_alone(line: str) -> None:
    reported = report(printed(line, {"n": 1}))
    assert reported.samples == {"n": Samples("number", [1])} and not reported.broken


@given(st.binary())
def test_no_output_upsets_the_reader(data: bytes) -> None:
    record = ProgramRecord("a.b", "run", stdout=data)
    assert report(record, [Declared("m", prints=r"(\d+)"), Declared("j", json_path="a.b")]) is not None


@given(st.dictionaries(st.text(min_size=1), st.integers(-(10**15), 10**15)))
def test_whole_numbers_come_through_exactly(record: dict[str, int]) -> None:
    plain = {f"m{number}": value for number, value in enumerate(record.values())}
    assert {name: found.values for name, found in samples(plain).items()} == {k: [v] for k, v in plain.items()}


@pytest.mark.parametrize(
    ("lines", "name", "why"),
    [
        ([{"x_ms": 1}, {"x_bytes": 1}], "x", "reported as time and as size"),
        ([{"x": 1}, {"x": "one"}], "x", "reported as number and as text"),
        ([{"x_ms": "soon"}], "x", "the name says time"),
        ([{"x_ratio": {"count": 5, "of": 3}}], "x_ratio", "5 of 3 is no ratio"),
        ([{"x_ratio": {"count": 0.5, "of": 3}}], "x_ratio", "is no ratio"),
        ([{"x_ratio": {"count": True, "of": 3}}], "x", "is no ratio"),
        (['{"x": 1e999}'], "x", "no number of this world"),
    ],
)
def test_samples_that_contradict_themselves_are_broken_and_say_why(
    lines: list[object], name: str, why: str
) -> None:
    reported = report(printed(*lines, {"n": 1}))
    assert why in reported.broken[name]
    assert name not in reported.samples and reported.samples["n"].values == [1]
    assert name in reported.names


def test_unsupported_is_told_apart_from_metrics() -> None:
    reported = report(printed({"unsupported": "no SCTP here"}, {"n": 1}))
    assert reported.unsupported == "no SCTP here" and reported.names == ["n"]
    assert report(printed({"n": 1})).unsupported == ""


# ---------------------------------------------------------------- declared metrics


def test_prints_takes_the_first_group_or_the_whole_match() -> None:
    record = printed("time=20.1 ms", "time=0.5 ms", "stored 7", "stored 12", "state: up")
    declared = [
        Declared("rtt", prints=r"time=([0-9.]+) ms", dimension="time", scale=Fraction(10**6)),
        Declared("stored", prints=r"stored (\d+)"),
        Declared("state", prints=r"^state: (\w+)$"),
        Declared("word", prints=r"stored"),
    ]
    found = report(record, declared).samples
    assert found["rtt"] == Samples("time", [20_100_000, 500_000])
    assert found["stored"] == Samples("number", [7, 12])
    assert found["state"] == Samples("text", ["up"])
    assert found["word"] == Samples("text", ["stored", "stored"])


def test_json_looks_into_objects() -> None:
    record = printed({"a": {"b": {"c": 3}}}, {"a": {"b": 1}}, {"a": 1}, {"a": {"b": {"c": 0.5}}})
    found = report(record, [Declared("c", json_path="a.b.c", dimension="size", scale=Fraction(1000))]).samples
    assert found["c"] == Samples("size", [3000, 500])


def test_indented_json_is_one_record() -> None:
    iperf3 = {"start": {"port": 5201}, "end": {"sum": {"lost_packets": 7}}, "title": "udp"}
    record = printed(
        "- - -", json.dumps(iperf3, indent="\t"), {"n": 1}, json.dumps({"n": 2, "in": [{"n": 9}]}, indent=1)
    )
    found = report(record, [Declared("lost", json_path="end.sum.lost_packets")]).samples
    assert found["lost"].values == [7] and found["title"].values == ["udp"]
    assert found["n"].values == [1, 2], "what stands inside of an object is no record of its own"


@pytest.mark.parametrize(
    "text",
    [
        b'{\n"n": 5',  # never closed
        b'x {\n"n": 5\n}',
        b'{\n"n": 5\n} x',
        b'{\n"n": 5\n}, {"n": 6}',
        b'[\n{\n"n": 5,\n}\n]',
        b'{\n"n": NaN\n}',
        b'{\n"n": 5, "m": "\xff"\n}',
        b'{\n"n": 5, "m": "two\nlines"\n}',
        b"{\n{\n{\n}\n}\n}",
        b'{"n":\n' * 5000,
    ],
)
def test_what_is_not_indented_json_is_no_record_and_hides_none(text: bytes) -> None:
    record = ProgramRecord("host.program", "run", 100, None, 350, 0, stdout=text + b'\n{"n": 1}\r\n \t{"n": 2} \n')
    assert report(record).samples["n"].values == [1, 2]


def test_a_declared_metric_may_be_a_ratio_with_counts_inside() -> None:
    record = printed({"udp": {"loss": {"count": 3, "of": 30}}})
    assert report(record, [Declared("l", json_path="udp.loss")]).samples["l"].values == [Counts(3, 30)]


def test_a_declared_metric_of_a_collected_file() -> None:
    record = printed("stored 1")
    record.collected["/var/log/x"] = b'stored 5\n{"n": 2}\n'
    declared = [Declared("stored", r"stored (\d+)", None, "/var/log/x"), Declared("n", None, "n", "/var/log/x")]
    found = report(record, declared)
    assert found.samples["stored"].values == [5] and found.samples["n"].values == [2]
    missing = report(record, [Declared("stored", r"stored (\d+)", None, "/nowhere")])
    assert missing.broken == {"stored": "/nowhere was not collected"}


def test_nothing_that_matches_is_no_sample_and_a_word_for_a_time_is_broken() -> None:
    reported = report(
        printed("time=soon ms"), [Declared("rtt", r"time=(\w+)", dimension="time"), Declared("n", "n=")]
    )
    assert reported.samples["n"].values == []
    assert reported.broken == {"rtt": "`soon` is no number"}


def test_what_is_declared_replaces_what_is_reported() -> None:
    found = report(printed({"n": 1}, "n=7"), [Declared("n", prints=r"n=(\d)")]).samples
    assert found["n"].values == [7]


# ---------------------------------------------------------------- built in


def test_what_every_program_has() -> None:
    record = ProgramRecord("a.b", "serve", 100, 130, 350, "SIGKILL", stdout=b"out\xff\n", stderr=b"err")
    found = {name: built_in(record, name) for name in BUILT_IN}
    assert found == {
        "exit": Samples("status", ["SIGKILL"]),
        "stdout": Samples("text", ["out�\n"]),
        "stderr": Samples("text", ["err"]),
        "duration": Samples("time", [250]),
        "ready_after": Samples("time", [30]),
        "lives": Samples("number", [1]),
    }


def test_a_program_that_never_started_has_only_lives_and_these_are_none() -> None:
    record = ProgramRecord("a.b", "run")
    assert {name for name in BUILT_IN if built_in(record, name) is None} == BUILT_IN.keys() - {"lives"}
    assert built_in(record, "lives") == Samples("number", [0])


# ---------------------------------------------------------------- aggregates


def test_aggregates_of_numbers() -> None:
    found = Samples("time", [30, 10, 20, 20])
    values = {name: aggregate(found, name).values[0] for name in ("count", "sum", "min", "mean", "median", "max")}
    assert values == {"count": 4, "sum": 80, "min": 10, "mean": 20, "median": 20, "max": 30}
    assert aggregate(found, "first").values == [30] and aggregate(found, "last").values == [20]
    assert aggregate(found, "sd").values[0] == pytest.approx(8.16496580927726)
    assert aggregate(found, "count").dimension == "number" and aggregate(found, "max").dimension == "time"


@pytest.mark.parametrize(("name", "need"), [("p90", 100), ("p95", 200), ("p99", 1000)])
def test_a_percentile_needs_its_samples(name: str, need: int) -> None:
    enough = Samples("number", list(range(need)))
    assert aggregate(enough, name).values == [need * int(name[1:]) // 100 - 1]
    with pytest.raises(TooFew, match=f"needs {need:,} samples, and there are {need - 1}"):
        aggregate(Samples("number", list(range(need - 1))), name)


def test_a_lost_packet_is_infinite_for_order_and_left_out_of_the_mean() -> None:
    delays = Samples("time", [10, float("inf"), 30, float("inf"), float("inf")])
    assert aggregate(delays, "count").values == [5]
    assert aggregate(delays, "min").values == [10]
    assert aggregate(delays, "median").values == aggregate(delays, "max").values == [float("inf")]
    assert aggregate(delays, "mean").values == [20] and aggregate(delays, "sum").values == [40]
    with pytest.raises(TooFew, match="needs 1 sample, and there is none"):
        aggregate(Samples("time", [float("inf")]), "mean")


def test_aggregates_of_words() -> None:
    words = Samples("text", ["EPERM", "EIO"])
    assert aggregate(words, "count").values == [2] and aggregate(words, "last").values == ["EIO"]
    with pytest.raises(TypeError, match="`EPERM` is a word"):
        aggregate(words, "max")


def test_aggregates_of_ratios_are_of_their_values() -> None:
    assert aggregate(Samples("ratio", [Counts(1, 4), Counts(3, 4)]), "mean").values == [Fraction(1, 2)]
    with pytest.raises(ZeroDivisionError):
        numbers(Samples("ratio", [Counts(0, 0)]))


@pytest.mark.parametrize("name", ["min", "max", "median", "mean", "sd", "p90", "first", "last"])
def test_nothing_has_no_aggregate_but_count_and_sum(name: str) -> None:
    with pytest.raises(TooFew, match="none"):
        aggregate(Samples("number", []), name)
    assert (
        aggregate(Samples("number", []), "count").values == aggregate(Samples("number", []), "sum").values == [0]
    )


@pytest.mark.parametrize(("value", "dimension"), [(7, "size"), ("none yet", "text")])
def test_a_declared_metric_that_is_called_like_its_unit_has_it(value: object, dimension: str) -> None:
    declared = [Declared("bytes", json_path="end.bytes")]
    assert report(printed({"end": {"bytes": value}}), declared).samples["bytes"].dimension == dimension


def test_a_unit_that_is_declared_is_stronger_than_a_name() -> None:
    declared = [Declared("bytes", json_path="n", dimension="time", scale=Fraction(10**9))]
    assert report(printed({"n": 2}), declared).samples["bytes"] == Samples("time", [2 * 10**9])


def test_a_word_is_a_word_also_where_its_metric_is_called_like_a_unit() -> None:
    """`{"ns": "refused"}`: the Network Systems family, and no nanoseconds."""
    found = report(printed({"ns": "refused", "ms": True})).samples
    assert found["ns"] == Samples("text", ["refused"]) and found["ms"].dimension == "text"
