"""docs/scale.md has the table that benchmarks/scale.py computes from the measured rates."""

import json
from pathlib import Path

import pytest
import scale

ROOT = Path(__file__).resolve().parents[2]
RATES = {
    "prepare, 500×375 to 32 pixels": {"photos_per_second": 1000, "bytes_a_photo": 60_000},
    "train, 32 pixels, batch 64, one core": {"photos_per_second": 500},
    "train, 32 pixels, batch 64, NVIDIA H100 80GB HBM3": {"photos_per_second": 50_000},
    "prepare, 32×32 to 32 pixels": {"memory_a_photo": 1200},
}


def test_the_table_equals_one_computed_by_hand():
    header, *rows = scale.table(RATES)
    assert header == ["photos", "12,000", "1,000,000", "1,000,000,000"]
    found = {row[0]: row[1:] for row in rows}
    # 1e9 photos of 60 kB are 60,000 GB, at $0.023 each $1,380 a month.
    assert found["JPEGs of 500×375, and a month of them in a bucket"] == [
        *("0.72 GB, $0.017", "60 GB, $1.4", "60,000 GB, $1,400")
    ]
    # 32 × 32 × 3 bytes.
    assert found["prepared store of 32 pixels"] == ["0.037 GB", "3.1 GB", "3,100 GB"]
    # 1,000 photos a second; 1e6 s are 278 hours, at $0.04 $11.
    assert found["`prepare` on a core"] == ["12 s, below $0.01", "17 min, $0.011", "12 days, $11"]
    assert found["its memory for names and hashes"][2] == "1,200 GB"
    assert found["an epoch on a core"][1] == "33 min"  # 2,000 s
    # 24 epochs of 1e9 photos at 50,000/s: 480,000 s, 5.6 days, at $3 an hour.
    assert found["24 epochs on an H100"][2] == "5.6 days, $400"


def test_the_page_has_this_table(capsys):
    scale.main()
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    table = page.split("<!-- scale -->\n")[1].split("<!-- /scale -->")[0]
    assert table == capsys.readouterr().out


def test_a_missing_rate_is_an_error(tmp_path):
    path = tmp_path / "rates.jsonl"
    path.write_text(json.dumps({"what": "prepare, 32×32 to 32 pixels", "memory_a_photo": 1}))
    with pytest.raises(KeyError, match="500×375"):
        scale.table(scale.load_rates(path))
