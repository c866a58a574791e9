"""Quantities: exact both ways, and a hint for every spelling that people bring along."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.scenario import units
from testbed.scenario.units import Quantity, UnitError


@pytest.mark.parametrize(
    ("text", "value", "dimension"),
    [
        ("20 ms", 20_000_000, "time"),
        ("20ms", 20_000_000, "time"),
        ("  1.5   us ", 1_500, "time"),
        ("0.1 us", 100, "time"),
        ("2 min", 120_000_000_000, "time"),
        ("1 h", 3_600_000_000_000, "time"),
        ("0 ns", 0, "time"),
        ("-3 s", -3_000_000_000, "time"),
        ("10 Mbit/s", 10_000_000, "rate"),
        ("0.5 kbit/s", 500, "rate"),
        ("64 KiB", 65_536, "size"),
        ("1.5 KiB", 1_536, "size"),
        ("2 GB", 2_000_000_000, "size"),
        ("10 %", 0.1, "ratio"),
        ("110%", 1.1, "ratio"),
        ("100 packets", 100, "packets"),
        ("1 packet", 1, "packets"),
        ("7", 7, "number"),
        ("7.0", 7, "number"),
        ("7.25", 7.25, "number"),
        ("-7", -7, "number"),
    ],
)
def test_a_quantity_in_base_units(text: str, value: float, dimension: str) -> None:
    quantity = units.parse_quantity(text)
    assert (quantity.value, quantity.dimension) == (value, dimension)
    assert type(quantity.value) is type(value)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_duration_ns, "20 ms", 20_000_000),
        (units.parse_rate_bit_s, "1 Gbit/s", 10**9),
        (units.parse_size_bytes, "3 MiB", 3 * 2**20),
        (units.parse_ratio, "0.1 %", 0.001),
        (units.parse_ratio, "100 %", 1.0),
        (units.parse_packets, "8 packets", 8),
    ],
)
def test_each_dimension_has_its_parser(parse: Callable[[str], float], text: str, value: float) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("20", "did you mean `20 ms` or `20 s`?"),
        ("20 msec", "did you mean `20 ms`?"),
        ("2 d", "did you mean `48 h`?"),
        ("20 m", "did you mean `20 min` or `20 ms`?"),
        ("20 MS", "did you mean `20 ms`?"),
        ("20 sec", "did you mean `20 s`?"),
        ("20 µs", "did you mean `20 us`?"),
        ("2 days", "`48 h`"),
        ("1:30", "`90 s`"),
        ("1_000 ms", "without separators, and the decimal sign is a point; did you mean `1000 ms`?"),
        ("1,5 s", "decimal sign is a point; did you mean `1.5 s`?"),
        ("1e3 ms", "did you mean `1000 ms`?"),
        (".5 s", "did you mean `0.5 s`?"),
        ("5 m s", "units: ns us ms s min h"),
        ("10 Mbit/s", "units: ns us ms s min h"),
        ("abc", "a number and a unit"),
        ("", "a number and a unit"),
        ("- 5 s", "a number and a unit"),
        ("5. s", "did you mean `5 s`?"),
        ("0.02", "did you mean `20 ms`?"),
        ("1m30s", "did you mean `90 s`?"),
        ("20-30 ms", "did you mean `delay: 25 ms, jitter: 5 ms`?"),
        ("20ms ± 5ms", "did you mean `delay: 20 ms, jitter: 5 ms`?"),
        ("20ms 5ms", "did you mean `delay: 20 ms, jitter: 5 ms`?"),
        ("20\u00a0ms", "did you mean `20 ms`?"),
        ("none", "did you mean `0 ms`?"),
        ("٣ ms", "a number and a unit"),
    ],
)
def test_what_is_no_time_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as refused:
        units.parse_duration_ns(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10 Mbps", "did you mean `10 Mbit/s`?"),
        ("10 mbit", "did you mean `10 Mbit/s`?"),
        ("10 MB/s", "`80 Mbit/s` (a rate is in bits, eight to a byte)"),
        ("1000000", "did you mean `1 Mbit/s`?"),
        ("10", "did you mean `10 Mbit/s`?"),
        ("10 K", "did you mean `10 kbit/s`?"),
        ("10 M", "did you mean `10 Mbit/s`?"),
        ("10 MBIT/S", "did you mean `10 Mbit/s`?"),
    ],
)
def test_what_is_no_rate_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as refused:
        units.parse_rate_bit_s(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("3 KB", "`3 kB` or `3 KiB`"),
        ("3 K", "`3 kB` or `3 KiB`"),
        ("3 bytes", "did you mean `3 B`?"),
        ("3", "`3 B`"),
    ],
)
def test_what_is_no_size_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as refused:
        units.parse_size_bytes(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("0.05", "`5 %`"),
        ("5", "`5 %`"),
        ("1", "`1 %` or `100 %`"),
        ("1.5", "`1.5 %`"),
        ("%5", "`5 %`"),
        ("5%%", "`5 %`"),
        ("5 percent", "`5 %`"),
        ("0,5 %", "`0.5 %`"),
        ("1/20", "`5 %`"),
        ("1e-2", "`1 %`"),
        ("5\u00a0%", "`5 %`"),
        ("none", "`0 %`"),
        ("1/3", "as in `10 %`"),
        ("150", "as in `10 %`"),
        ("2/1", "as in `10 %`"),
    ],
)
def test_what_is_no_ratio_is_refused_with_what_is_meant(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as refused:
        units.parse_ratio(text)
    assert hint in refused.value.hint


@given(
    st.sampled_from([units.parse_ratio, units.parse_duration_ns, units.parse_rate_bit_s]),
    st.text("0123456789.,%/smMbit ", max_size=9),
)
def test_what_is_proposed_can_be_written(parse: Callable[[str], float], text: str) -> None:
    try:
        parse(text)
    except UnitError as refused:
        if "did you mean `" in refused.hint and ": " not in refused.hint.split("did you mean", 1)[1]:
            for proposed in re.findall("`([^`]*)`", refused.hint.split("did you mean", 1)[1]):
                with suppress(UnitError):  # out of range, or finer than a nanosecond: said in its turn
                    parse(proposed)
                    continue
                with pytest.raises(UnitError, match=r"whole number|outside|too large|below zero"):
                    parse(proposed)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (units.parse_duration_ns, "1.5 ns", "not a whole number of ns"),
        (units.parse_duration_ns, "-1 ns", "below zero"),
        (units.parse_duration_ns, "9999999999 h", "too large"),
        (units.parse_duration_ns, "1" * 41 + " s", "is no time"),
        (units.parse_rate_bit_s, "0.0001 kbit/s", "not a whole number of bit/s"),
        (units.parse_size_bytes, "0.3 KiB", "not a whole number of B"),
        (units.parse_packets, "2.5 packets", "not a whole number of packets"),
        (units.parse_ratio, "101 %", "outside 0 % to 100 %"),
        (units.parse_ratio, "-1 %", "outside 0 % to 100 %"),
        (units.parse_ratio, "0.1", "has no unit"),
        (units.parse_duration_ns, "5 packets", "is a number of packets, not a time"),
    ],
)
def test_a_value_that_would_be_rounded_or_is_out_of_range_is_refused(
    parse: Callable[[str], float], text: str, message: str
) -> None:
    with pytest.raises(UnitError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.format_ns(20_000_000), "20 ms"),
        (units.format_ns(1_500_000), "1.5 ms"),
        (units.format_ns(90 * 10**9), "90 s"),
        (units.format_ns(120 * 10**9), "2 min"),
        (units.format_ns(0), "0 ns"),
        (units.format_ns(-1_234_567), "-1.234567 ms"),
        (units.format_rate(10_000_000), "10 Mbit/s"),
        (units.format_rate(999), "999 bit/s"),
        (units.format_size(65_536), "64 KiB"),
        (units.format_size(1_500), "1.5 kB"),
        (units.format_size(1_024_000), "1.024 MB"),
        (units.format_ratio(0.1), "10 %"),
        (units.format_ratio(1e-7), "0.00001 %"),
        (units.format_ratio(1.0), "100 %"),
        (units.format_packets(1), "1 packet"),
        (units.format_packets(30), "30 packets"),
        (units.format_quantity(Quantity(2.5, "number")), "2.5"),
        (units.format_quantity(Quantity(7, "number")), "7"),
        (units.format_quantity(Quantity(0.03, "ratio")), "3 %"),
    ],
)
def test_quantities_on_screen(shown: str, text: str) -> None:
    assert shown == text


@given(st.integers(0, 2**63 - 1))
def test_what_is_shown_reads_back_the_same(value: int) -> None:
    assert units.parse_duration_ns(units.format_ns(value)) == value
    assert units.parse_rate_bit_s(units.format_rate(value)) == value
    assert units.parse_size_bytes(units.format_size(value)) == value
    assert units.parse_packets(units.format_packets(value)) == value
    assert units.parse_quantity(units.format_ns(-value)).value == -value


@given(st.floats(0, 1, allow_subnormal=False).filter(lambda ratio: ratio == 0 or ratio > 1e-20))
def test_a_ratio_reads_back_to_the_same_float(ratio: float) -> None:
    assert units.parse_ratio(units.format_ratio(ratio)) == ratio


@given(
    st.decimals(0, 10**6, places=6, allow_nan=False, allow_infinity=False),
    st.sampled_from(sorted(units.TIME)),
    st.text(" ", max_size=3),
)
def test_decimal_times_are_exact_or_refused(number: Decimal, unit: str, gap: str) -> None:
    exact = number * units.TIME[unit]
    if exact == exact.to_integral_value():
        assert units.parse_duration_ns(f"{number:f}{gap}{unit}") == int(exact)
    else:
        with pytest.raises(UnitError, match="whole number"):
            units.parse_duration_ns(f"{number:f}{gap}{unit}")


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_a_unit_error(text: str) -> None:
    try:
        quantity = units.parse_quantity(text)
    except UnitError as refused:
        assert "\n" not in str(refused) + refused.hint
    else:
        assert units.parse_quantity(units.format_quantity(quantity)) == quantity
