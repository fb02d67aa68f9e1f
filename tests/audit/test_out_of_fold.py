"""Folds, and confident learning by hand."""

import numpy as np

from fieldguide.audit.confident import confident_joint, doubt_labels
from fieldguide.audit.out_of_fold import draw_folds, out_of_fold


def test_a_group_is_in_one_fold_and_each_fold_has_each_class():
    rng = np.random.default_rng(0)
    group = rng.integers(0, 60, 400)  # of about 7 photos
    labels = group % 3
    folds = draw_folds(labels, [f"g{k}" for k in group], folds=5, seed=1)
    for one in range(60):
        assert len(set(folds[group == one])) <= 1
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(5)])
    assert counts.min() > 10
    again = draw_folds(labels, [f"g{k}" for k in group], folds=5, seed=1)
    assert (folds == again).all()


def test_a_photo_does_not_teach_the_model_that_judges_it():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 300)).astype(np.float32)  # enough to learn all by heart
    labels = rng.integers(0, 2, 200)
    folds = draw_folds(labels, [str(k) for k in range(200)], folds=5, seed=0)
    found = out_of_fold(features, labels, folds, classes=2)
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    assert 0.35 < (found.probabilities.argmax(1) == labels).mean() < 0.65


def test_a_class_with_fewer_groups_than_folds_is_not_judged():
    groups_of = [20, 5, 4, 1]  # by class; each class has 20 photos
    labels = np.repeat([0, 1, 2, 3], 20)
    groups = [f"{label} {k % groups_of[label]}" for k, label in enumerate(labels)]
    folds = draw_folds(labels, groups, folds=5, seed=0)
    features = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    known = out_of_fold(features, labels, folds, classes=4).known
    assert (known == (labels < 2)).all()


def test_the_confident_joint_of_an_example():
    probabilities = np.array(
        [
            [0.9, 0.1],  # thresholds: (0.9 + 0.7 + 0.2) / 3 = 0.6 and (0.8 + 0.6 + 0.1) / 3 = 0.5
            [0.7, 0.3],
            [0.2, 0.8],  # labelled 0, confidently 1
            [0.2, 0.8],
            [0.4, 0.6],
            [0.9, 0.1],  # labelled 1, confidently 0
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    found = doubt_labels(probabilities, labels)
    assert found.doubtful.tolist() == [False, False, True, False, False, True]
    assert found.suggested.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(confident_joint(probabilities, labels), [[2, 1], [1, 2]])
    np.testing.assert_allclose(found.score[[0, 2, 5]], [0.1, 0.8, 0.9])
