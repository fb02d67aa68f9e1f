"""docs/scale.md says what benchmarks/scale.py reckons from the measured rates."""

import json
from pathlib import Path

import pytest
import scale

ROOT = Path(__file__).resolve().parents[2]
RATES = {
    "prepare, 500×375 to 32 pixels": {"photos_per_second": 1000, "bytes_a_photo": 50_000},
    "train, 32 pixels, one core": {"photos_per_second": 500},
    "train, 32 pixels, H100": {"photos_per_second": 50_000},
    "prepare, memory": {"bytes_a_photo": 1200},
}


def test_a_table_by_hand():
    header, *rows = scale.table(RATES)
    assert header == ["photos", "12,000", "1,000,000", "1,000,000,000"]
    found = {row[0]: row[1:] for row in rows}
    # 1e9 photos of 50 kB are 50,000 GB, at $0.023 each $1,150 a month.
    assert found["archives of JPEGs of 500×375, and a month of them"] == [
        *("0.6 GB ($0.014)", "50 GB ($1.2)", "50,000 GB ($1,200)")
    ]
    # 32 × 32 × 3 bytes.
    assert found["prepared store of 32 pixels"] == ["0.037 GB", "3.1 GB", "3,100 GB"]
    # 1e6 photos at 1,000/s are 1,000 s.
    assert found["`prepare`"][1] == "0.28 core-hours ($0.011)"
    assert found["its memory for names and hashes"][2] == "1,200 GB"
    assert found["an epoch on a core"][1] == "0.56 hours"
    # 24 epochs of 1e9 photos at 50,000/s: 480,000 s, at $3 an hour.
    assert found["24 epochs on an H100"][2] == "130 GPU-hours ($400)"


def test_the_page_has_this_table(capsys):
    scale.main()
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    table = page.split("<!-- scale -->\n")[1].split("<!-- /scale -->")[0]
    assert table == capsys.readouterr().out


def test_a_missing_rate_is_no_zero(tmp_path):
    path = tmp_path / "rates.jsonl"
    path.write_text(json.dumps({"what": "prepare, memory", "bytes_a_photo": 1}))
    with pytest.raises(KeyError, match="500×375"):
        scale.table(scale.load_rates(path))
