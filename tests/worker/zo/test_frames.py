"""Orthonormal columns out of noise, against LAPACK's."""

import numpy as np
import pytest

from worker.zo import noise
from worker.zo.frames import frames
from worker.zo.noise import Place, Stream

PLACE = Place(7, Stream.PROJECTION, 3)


@pytest.mark.parametrize("sides, rank", [((12, 5, 12), 5), ((576, 192), 64), ((1,), 1)])
def test_columns_are_orthonormal_to_1e_12(sides, rank):
    for side, q in zip(sides, frames(PLACE, sides, rank), strict=True):
        assert (q.shape, q.dtype) == ((side, rank), np.float64)
        np.testing.assert_allclose(q.T @ q, np.eye(rank), rtol=0, atol=1e-12)


def test_it_is_the_q_of_noise_with_a_positive_diagonal():
    for i, q in enumerate(frames(PLACE, (9, 6, 9), 4)):
        drawn = noise.normal(PLACE._replace(tensor=i), len(q) * 4).reshape(len(q), 4).astype(np.float64)
        expected, r = np.linalg.qr(drawn)
        np.testing.assert_allclose(q, expected * np.sign(np.diag(r)), atol=1e-12)


def test_modules_and_windows_differ():
    first, _, third = frames(PLACE, (9, 6, 9), 4)
    later = frames(PLACE._replace(step=4), (9,), 4)[0]
    assert np.abs(first - third).max() > 0.1
    assert np.abs(first - later).max() > 0.1
