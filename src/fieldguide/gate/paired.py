"""How much worse one model is than another on the same photos, and whether it could be chance.

A loss is positive where the candidate is worse. Two questions are asked of it, and the p value of
both together is the larger of theirs (intersection-union: Berger 1982,
https://doi.org/10.1080/00401706.1982.10487790):

- Could it be chance? Were the models equal, either answer to a photo could as well be the other's.
  Swapping answers photo by photo gives the distribution of losses between equals; for shares of
  photos that is McNemar's exact test.
- Is it more than what is tolerated? The bootstrap over photos (Efron & Tibshirani 1993, chapter 13)
  says how far the loss would move with other photos of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import binom, binomtest

_CELLS = 2**22  # of the matrix of one chunk of resamples: 32 MiB
_ROUNDING = 1e-9  # sums of the same fractions in another order

Floats = npt.NDArray[np.float64]


class Comparison(NamedTuple):
    """Of one score of two models; differences are losses, positive where the candidate is worse."""

    loss: float
    low: float  # interval of the loss; its lower end is the bound that the decision uses
    high: float
    p: float  # of the hypothesis that the models are equal, or the loss within what is tolerated
    method: str


class Draw(NamedTuple):
    """Random resampling."""

    resamples: int
    seed: int


class Sums(NamedTuple):
    """A score that depends on photos only through sums over them.

    Sums are what makes thousands of resamples cheap: each is one row of a matrix product.
    """

    terms: csr_array  # (N, M), what each photo adds
    score: Callable[[Floats], Floats]  # (R, M) sums -> (R,) scores

    @property
    def value(self) -> float:
        """The score of all photos."""
        return float(self.score(_add(np.ones((1, self.terms.shape[0])), self.terms))[0])


def compare_shares(
    reference: npt.NDArray[np.bool_],
    candidate: npt.NDArray[np.bool_],
    *,
    tolerated: float,
    level: float,
) -> Comparison:
    """Compare two models' shares of photos, such as those they are right about.

    McNemar's exact test, one-sided (McNemar 1947, https://doi.org/10.1007/BF02295996), and the
    bootstrap of the difference. Only the counts of photos lost and won matter, so the bootstrap
    distribution is known exactly, and nothing is drawn.

    Args:
        reference: (N,), whether the reference was right about each photo, N above 0.
        candidate: (N,), likewise.
        tolerated: loss, a fraction in [0, 1).
        level: significance in (0, 0.5); the interval has confidence 1 − 2 × level.
    """
    lost = int((reference & ~candidate).sum())
    won = int((~reference & candidate).sum())
    photos = len(reference)
    at_most = _bootstrap_of_share(lost, won, photos)
    chance = float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost + won else 1.0
    within = at_most(int(np.floor(tolerated * photos + _ROUNDING)))
    return Comparison(
        loss=(lost - won) / photos,
        low=_quantile(at_most, level, photos) / photos,
        high=_quantile(at_most, 1 - level, photos) / photos,
        p=max(chance, within),
        method="McNemar, paired bootstrap",
    )


def compare_sums(
    reference: Sums,
    candidate: Sums,
    *,
    sign: int,
    tolerated: float,
    level: float,
    draw: Draw,
) -> Comparison:
    """Compare two models' scores of the same photos, such as macro F1.

    The p value of a permutation test with a finite number of draws: Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585.

    Args:
        reference: terms (N, M), N above 0.
        candidate: terms (N, M) of the same photos.
        sign: 1 where a lower score is worse, -1 where a higher one is.
        tolerated: loss, 0 or more.
        level: significance in (0, 0.5); the interval has confidence 1 − 2 × level.
        draw: of permutations, and as many bootstrap samples.
    """

    def loss(old: Floats, new: Floats) -> Floats:
        return sign * (reference.score(old) - candidate.score(new))

    photos = reference.terms.shape[0]
    found = sign * (reference.value - candidate.value)
    rng = np.random.default_rng(draw.seed)
    extreme = 0
    for swapped in _chunks(draw.resamples, photos, lambda size: rng.integers(0, 2, size)):
        kept = 1 - swapped
        old = _add(kept, reference.terms) + _add(swapped, candidate.terms)
        new = _add(kept, candidate.terms) + _add(swapped, reference.terms)
        extreme += int((loss(old, new) >= found - _ROUNDING).sum())
    losses = np.concatenate(
        [
            loss(_add(times, reference.terms), _add(times, candidate.terms))
            for times in _chunks(draw.resamples, photos, lambda size: _times_drawn(rng, size))
        ]
    )
    chance = (1 + extreme) / (draw.resamples + 1)
    within = (1 + int((losses <= tolerated + _ROUNDING).sum())) / (draw.resamples + 1)
    low, high = np.quantile(losses, [level, 1 - level])
    return Comparison(
        loss=found,
        low=float(low),
        high=float(high),
        p=max(chance, within),
        method="permutation, paired bootstrap",
    )


def holm(p: list[float]) -> list[float]:
    """Adjust p values for their number (Holm 1979, https://www.jstor.org/stable/4615733).

    Where every hypothesis holds, one of the adjusted values is below α with probability α at most.
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for place, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - place) * p[k]))
        adjusted[k] = highest
    return adjusted


def _bootstrap_of_share(lost: int, won: int, photos: int) -> Callable[[int], float]:
    """Return k -> probability that a resample has at most k more photos lost than won.

    The discordant photos in a resample, D, are Binomial(N, (lost + won) / N), and of D the lost
    ones are Binomial(D, lost / (lost + won)); lost − won = 2 × lost − D.
    """
    differing = lost + won
    share = differing / photos
    # Beyond ten standard deviations lies less than rounding.
    reach = 10 * np.sqrt(photos * share * (1 - share)) + 10
    first = int(max(0, differing - reach))
    counts = np.arange(first, int(min(photos, differing + reach)) + 1)
    weights = binom.pmf(counts, photos, share)

    def at_most(k: int) -> float:
        lost_at_most = np.floor((counts + k) / 2)
        return float(weights @ binom.cdf(lost_at_most, counts, lost / max(differing, 1)))

    return at_most


def _quantile(at_most: Callable[[int], float], level: float, photos: int) -> int:
    """Smallest k with at_most(k) >= level."""
    below, found = -photos - 1, photos
    while found - below > 1:
        middle = (below + found) // 2
        if at_most(middle) >= level:
            found = middle
        else:
            below = middle
    return found


def _chunks(
    resamples: int, photos: int, make: Callable[[tuple[int, int]], npt.NDArray[np.int64]]
) -> Iterator[Floats]:
    """Yield (R, N) matrices of at most _CELLS numbers, `resamples` rows in all."""
    rows = max(1, _CELLS // photos)
    for start in range(0, resamples, rows):
        yield make((min(rows, resamples - start), photos)).astype(np.float64)


def _times_drawn(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """How often a bootstrap sample holds each photo: (R, N), rows summing to N."""
    rows, photos = size
    drawn = rng.integers(0, photos, size) + np.arange(rows)[:, None] * photos
    return np.bincount(drawn.ravel(), minlength=rows * photos).reshape(size)


def _add(times: Floats, terms: csr_array) -> Floats:
    """(R, N) × (N, M) -> (R, M)."""
    return np.asarray((terms.T @ times.T).T)
