"""The fixed-order linear algebra against numpy's LAPACK, in quality; its bits are pinned in test_conformance."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.types import Layout, Module
from worker.zo.linalg import matrix_sign, orthogonal_columns, orthogonalise, product, recompress, tree_sum


@given(st.integers(1, 40), st.integers(0, 1))
def test_sum_and_product(size, axis):
    rng = np.random.default_rng(size)
    x = rng.normal(size=(size, 3) if axis == 0 else (3, size))
    np.testing.assert_allclose(tree_sum(x, axis), x.sum(axis), atol=1e-12)
    a, b = rng.normal(size=(2, 4, size)), rng.normal(size=(2, size, 3))
    np.testing.assert_allclose(product(a, b), a @ b, atol=1e-12)


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(0, 5), st.integers(0, 1000))
def test_orthogonalise(columns, extra, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, columns + extra, columns))
    x[1, :, -1] = x[1, :, 0]  # dependent
    q, t = orthogonalise(x)
    np.testing.assert_allclose(q @ t, x, atol=1e-12)
    np.testing.assert_allclose(q[0].T @ q[0], np.eye(columns), atol=1e-12)
    np.testing.assert_array_equal(t, np.triu(t))
    if columns > 1:
        assert not q[1, :, -1].any()


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(0, 1000))
def test_orthogonal_columns_are_the_singular_vectors(size, seed):
    x = np.random.default_rng(seed).normal(size=(3, size, size))
    g, v = orthogonal_columns(x)
    np.testing.assert_allclose(g @ np.swapaxes(v, 1, 2), x, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(g, axis=1), np.linalg.svd(x)[1], atol=1e-11)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 20), st.sampled_from([1e-30, 1.0, 1e30]), st.integers(0, 1000))
def test_matrix_sign_against_the_svd(rows, extra, scale, seed):
    """Singular values of g spread over a factor of 1,000: the square of that is what rounding is amplified by."""
    rng = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(rng.normal(size=(2, rows, rows + extra)), full_matrices=False)
    g = scale * (u * np.logspace(0, -3, rows)) @ vt
    np.testing.assert_allclose(matrix_sign(g), u @ vt, atol=1e-8)


def test_matrix_sign_of_what_has_no_full_rank():
    rng = np.random.default_rng(1)
    g = np.stack([rng.normal(size=(5, 2)) @ rng.normal(size=(2, 9)), np.zeros((5, 9))])
    u, _, vt = np.linalg.svd(g[0], full_matrices=False)
    signs = matrix_sign(g)
    np.testing.assert_allclose(signs[0], u[:, :2] @ vt[:2], atol=1e-8)
    assert not signs[1].any()
    tall = matrix_sign(np.swapaxes(g, 1, 2))
    np.testing.assert_allclose(tall[0], (u[:, :2] @ vt[:2]).T, atol=1e-8)


@pytest.mark.parametrize("rank, keep", [(2, 1), (5, 3), (8, 6), (16, 8)])
def test_recompress_is_the_best_approximation(rank, keep):
    layout = Layout(rank, 2.0, (Module("a", 20, 30), Module("b", 20, 30), Module("c", 9, 40)))
    params = np.random.default_rng(rank).normal(size=layout.size).astype(np.float32)
    folded, lost = recompress(layout, params, keep)
    dropped = whole = 0.0
    for (_, a, b), (_, c, d) in zip(layout.pairs(params), layout.pairs(folded), strict=True):
        u, s, vt = np.linalg.svd(b.astype(np.float64) @ a)
        np.testing.assert_allclose(d.astype(np.float64) @ c, (u[:, :keep] * s[:keep]) @ vt[:keep], atol=1e-4)
        assert not c[keep:].any()
        assert not d[:, keep:].any()
        dropped += float((s[keep:rank] ** 2).sum())
        whole += float((s**2).sum())
    assert lost == pytest.approx(math.sqrt(dropped / whole), rel=1e-9)
    assert lost > 0


def test_what_fits_is_kept_whole():
    layout = Layout(6, 2.0, (Module("a", 20, 30),))
    params = np.random.default_rng(0).normal(size=layout.size).astype(np.float32)
    layout.tensor(params, 1)[:, 3:] = 0
    folded, lost = recompress(layout, params, 3)
    assert lost < 1e-12
    before, after = (layout.tensor(p, 1).astype(np.float64) @ layout.tensor(p, 0) for p in (params, folded))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_nothing_stays_nothing():
    layout = Layout(4, 2.0, (Module("a", 5, 6),))
    folded, lost = recompress(layout, np.zeros(layout.size, np.float32), 2)
    assert lost == 0
    assert not folded.any()
