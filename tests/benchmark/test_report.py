"""The one form that all benchmarks write."""

import json
import mmap

from vla_jax.benchmark.report import Row, format_table, resident_mb, write_report

ROWS = [Row("a/ratio", 0.98765, "1"), Row("b/rate_per_s", 12345.6, "images/s")]


def test_table_is_aligned():
    assert format_table(ROWS) == (
        "a/ratio       0.9877  1\nb/rate_per_s  12,346  images/s"
    )


def test_file_holds_rows_and_machine(tmp_path):
    write_report(ROWS, tmp_path / "new" / "report.json")
    content = json.loads((tmp_path / "new" / "report.json").read_text())
    assert content["rows"][0] == {
        "name": "a/ratio",
        "value": 0.98765,
        "unit": "1",
        "turns": 1,
        "low": 0.98765,
        "high": 0.98765,
    }
    assert {"processor", "cores", "devices", "packages"} <= set(content["machine"])


def test_several_turns_give_a_median_with_its_range():
    row = Row.over("a/ratio", [0.5, 2.0, 1.25], "1")
    assert row == Row("a/ratio", 1.25, "1", turns=3, low=0.5, high=2.0)
    assert format_table([row]) == "a/ratio  1.2500  1  (0.5000 to 2, 3 turns)"


def test_resident_memory_grows_with_what_is_used():
    # A map of its own: what the allocator held or returns meanwhile does not count.
    with mmap.mmap(-1, 256_000_000) as block:
        before = resident_mb()
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        assert 200 < resident_mb() - before < 320
