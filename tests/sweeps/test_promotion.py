import random
from itertools import pairwise

import pytest

from fieldguide.sweeps.promotion import Promotion


def test_the_highest_rung_comes_first_and_each_is_promoted_once():
    found = Promotion([1, 3], eta=2, goal="minimize")
    for number, score in enumerate([0.5, 0.1, 0.4, 0.3]):
        found.begin(number, 1)
        found.enter(number, 1, score)
    assert found.next() == (1, 3)
    found.begin(1, 3)
    assert found.next() == (3, 3)
    found.begin(3, 3)
    assert found.next() is None  # two of four
    found.enter(1, 3, 0.2)
    assert found.next() is None  # one of one is not half
    found.enter(3, 3, 0.25)
    found.enter(4, 1, 0.0)
    found.enter(5, 1, 0.05)
    assert found.next() == (1, 0)
    found.begin(1, 0)
    assert found.next() == (4, 3)


def test_at_the_end_the_best_of_each_rung_goes_on_until_the_last_has_a_winner():
    found = Promotion([1, 3], eta=3, goal="maximize")
    found.enter(0, 1, 0.5)
    found.enter(1, 1, 0.6)
    assert found.next() is None
    assert found.last() == (1, 3)
    found.begin(1, 3)
    assert found.last() is None  # it runs
    found.fail(1)
    assert found.last() == (0, 3)
    found.begin(0, 3)
    found.enter(0, 3, 0.7)
    assert found.last() == (0, 0)
    found.begin(0, 0)
    found.enter(0, 0, 0.8)
    assert found.last() is None


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
@pytest.mark.parametrize(("stops", "eta"), [([1, 2, 4, 8], 2), ([3, 9], 3), ([], 3)])
def test_it_decides_as_the_algorithm_of_the_paper(goal, stops, eta):
    """Against algorithm 2 written down word for word, with workers that end in any order."""
    draw = random.Random(len(stops) + eta)
    found, rungs = Promotion(stops, eta, goal), [*stops, 0]
    scores = {rung: {} for rung in rungs}
    promoted = {rung: set() for rung in rungs}

    def get_job():
        for place in range(len(rungs) - 2, -1, -1):
            rung = rungs[place]
            best = sorted(scores[rung], key=scores[rung].get, reverse=goal == "maximize")
            candidates = best[: len(best) // eta]
            promotable = [number for number in candidates if number not in promoted[rung]]
            if promotable:
                return promotable[0], rungs[place + 1]
        return None

    running, new = [], 0
    while new < 200 or running:
        while len(running) < 5 and (new < 200 or get_job()):
            job = get_job()
            assert found.next() == job
            if job is None:
                job, new = (new, rungs[0]), new + 1
            elif job[1] != rungs[0]:
                promoted[rungs[rungs.index(job[1]) - 1]].add(job[0])
            found.begin(*job)
            running.append(job)
        number, rung = running.pop(draw.randrange(len(running)))
        scores[rung][number] = draw.random()
        found.enter(number, rung, scores[rung][number])
    sizes = [len(scores[rung]) for rung in rungs]
    assert sizes[0] == 200
    assert all(higher <= lower / eta * 1.5 for lower, higher in pairwise(sizes))


def test_what_may_still_be_promoted():
    found = Promotion([1, 3], eta=2, goal="maximize")
    for number in range(5):
        found.enter(number, 1, number / 10)
    found.begin(4, 3)
    # Of eight configurations, four can be promoted from a rung.
    assert found.may_be_promoted(1, planned=8) == [3, 2, 1]
    assert found.may_be_promoted(1, planned=100) == [3, 2, 1, 0]
    found.fail(3)
    assert found.may_be_promoted(1, planned=8) == [2, 1]
    assert found.may_be_promoted(3, planned=8) == []
