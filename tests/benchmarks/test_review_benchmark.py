"""The table of benchmarks/review.py."""

import review


def test_differences_are_between_trainings_of_equal_seed():
    tested = {("random", 0): 0.5, ("review", 0): 0.52, ("random", 1): 0.6, ("review", 1): 0.58}
    rows = [
        {"way": way, "seed": seed, "share": share, "photos": 4000 * share, "test_acc": acc}
        for (way, seed), acc in tested.items()
        for share in review.SHARES
    ]
    first, *_, last = review.table(rows).splitlines()[2:]
    assert first == "| 10%, 400 photos | 55.0 ± 7.1 | 55.0 ± 4.2 | +0.0 ± 2.8 | 2 |"
    assert last == "| 40%, 1,600 photos | 55.0 ± 7.1 | 55.0 ± 4.2 | +0.0 ± 2.8 | 2 |"
