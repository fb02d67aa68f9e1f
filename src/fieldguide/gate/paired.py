"""Compare the scores of two models on the same photos.

A loss is positive if the candidate is worse. It is tested in two ways, and the p value of both
together is the larger one (intersection-union: Berger 1982,
https://doi.org/10.1080/00401706.1982.10487790):

- Could the loss be chance? If the models were equal, their predictions of a photo could be swapped.
  Swapping them photo by photo gives the distribution of losses between equal models; for shares of
  photos that is McNemar's exact test.
- Is the loss more than what is tolerated? The bootstrap over photos (Efron & Tibshirani 1993,
  chapter 13) tells how much the loss would vary with other photos of the same kind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import binom, binomtest

_CELLS = 2**22  # in the matrix of one chunk of resamples: 32 MiB
_ROUNDING = 1e-9  # sums of the same fractions in another order differ by less

Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]


class Comparison(NamedTuple):
    """A score of two models, and the test of the loss."""

    reference: float
    candidate: float
    low: float  # interval of the change, candidate − reference
    high: float
    confidence: float  # of the interval: 1 − 2 × level
    p: float  # the larger of two p values: models equal; loss within tolerance
    method: str


class Sums(NamedTuple):
    """A score that depends on the photos only through sums over them.

    This makes resamples cheap: each one is a row of a matrix product.
    """

    terms: csr_array  # (N, M), what each photo adds
    score: Callable[[Floats], Floats]  # (R, M) sums -> (R,) scores

    @property
    def value(self) -> float:
        """Score of all photos."""
        return float(self.score(_add(np.ones((1, self.terms.shape[0])), self.terms))[0])


def compare_shares(
    reference: Hits, candidate: Hits, *, tolerated: float, level: float
) -> Comparison:
    """Compare two models' shares of photos, such as those that they are right about.

    The tests are McNemar's exact test, one-sided (McNemar 1947,
    https://doi.org/10.1007/BF02295996), and the bootstrap of the difference. Only the numbers of
    photos lost and won matter, so that the bootstrap distribution is computed exactly and nothing
    is drawn.

    Args:
        reference: (N,), True for each photo that the reference was right about; N above 0.
        candidate: (N,), the same of the candidate.
        tolerated: loss, a fraction in [0, 1).
        level: significance in (0, 0.5) of each side of the interval.
    """
    lost = int((reference & ~candidate).sum())
    won = int((~reference & candidate).sum())
    photos = len(reference)
    at_most = _bootstrap_of_share(lost, won, photos)
    chance = float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost + won else 1.0
    within = at_most(int(np.floor(tolerated * photos + _ROUNDING)))
    return Comparison(
        reference=float(reference.mean()),
        candidate=float(candidate.mean()),
        low=-_quantile(at_most, 1 - level, photos) / photos,
        high=-_quantile(at_most, level, photos) / photos,
        confidence=1 - 2 * level,
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
    resamples: int,
    seed: int,
) -> Comparison:
    """Compare two models' scores on the same photos, such as macro F1.

    The p value of a permutation test with a finite number of draws: Phipson & Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585.

    Args:
        reference: terms (N, M), N above 0.
        candidate: terms (N, M) of the same photos.
        sign: 1 if a lower score is worse, -1 if a higher one is.
        tolerated: loss, 0 or more.
        level: significance in (0, 0.5) of each side of the interval.
        resamples: number of permutations, and of bootstrap samples.
        seed: of the resamples.
    """

    def loss(reference_sums: Floats, candidate_sums: Floats) -> Floats:
        return sign * (reference.score(reference_sums) - candidate.score(candidate_sums))

    photos = reference.terms.shape[0]
    found = sign * (reference.value - candidate.value)
    rng = np.random.default_rng(seed)
    extreme = 0
    for swapped in _chunks(resamples, photos, lambda size: rng.integers(0, 2, size)):
        kept = 1 - swapped
        first = _add(kept, reference.terms) + _add(swapped, candidate.terms)
        second = _add(kept, candidate.terms) + _add(swapped, reference.terms)
        extreme += int((loss(first, second) >= found - _ROUNDING).sum())
    losses = np.concatenate(
        [
            loss(_add(times, reference.terms), _add(times, candidate.terms))
            for times in _chunks(resamples, photos, lambda size: _times_drawn(rng, size))
        ]
    )
    chance = (1 + extreme) / (resamples + 1)
    within = (1 + int((losses <= tolerated + _ROUNDING).sum())) / (resamples + 1)
    low, high = np.quantile(0.0 - sign * losses, [level, 1 - level])
    return Comparison(
        reference=reference.value,
        candidate=candidate.value,
        low=float(low),
        high=float(high),
        confidence=1 - 2 * level,
        p=max(chance, within),
        method="permutation, paired bootstrap",
    )


def holm(p: list[float]) -> list[float]:
    """Adjust p values for their number (Holm 1979, https://www.jstor.org/stable/4615733).

    If every hypothesis is true, the probability that any adjusted value is below α is at most α.
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for place, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - place) * p[k]))
        adjusted[k] = highest
    return adjusted


def _bootstrap_of_share(lost: int, won: int, photos: int) -> Callable[[int], float]:
    """Return the function k -> probability that in a resample lost − won is at most k.

    The number of lost or won photos in a resample, D, is Binomial(N, (lost + won) / N); of them
    Binomial(D, lost / (lost + won)) are lost; lost − won = 2 × lost − D.
    """
    differing = lost + won
    share = differing / photos
    # The probability beyond ten standard deviations is smaller than rounding errors.
    reach = 10 * np.sqrt(photos * share * (1 - share)) + 10
    first = int(max(0, differing - reach))
    counts = np.arange(first, int(min(photos, differing + reach)) + 1)
    weights = binom.pmf(counts, photos, share)

    def at_most(k: int) -> float:
        lost_at_most = np.floor((counts + k) / 2)
        return float(weights @ binom.cdf(lost_at_most, counts, lost / max(differing, 1)))

    return at_most


def _quantile(at_most: Callable[[int], float], level: float, photos: int) -> int:
    """Return the smallest k with at_most(k) >= level."""
    return bisect_left(range(-photos, photos), level, key=at_most) - photos


def _chunks(
    resamples: int, photos: int, make: Callable[[tuple[int, int]], npt.NDArray[np.int64]]
) -> Iterator[Floats]:
    """Yield (R, N) matrices of at most _CELLS numbers, `resamples` rows in all."""
    rows = max(1, _CELLS // photos)
    for start in range(0, resamples, rows):
        yield make((min(rows, resamples - start), photos)).astype(np.float64)


def _times_drawn(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Draw how often each bootstrap sample holds each photo: (R, N), each row sums to N."""
    rows, photos = size
    drawn = rng.integers(0, photos, size) + np.arange(rows)[:, None] * photos
    return np.bincount(drawn.ravel(), minlength=rows * photos).reshape(size)


def _add(times: Floats, terms: csr_array) -> Floats:
    """Add the terms, each so many times: (R, N) × (N, M) -> (R, M)."""
    return np.asarray((terms.T @ times.T).T)
