"""The masks: equal to the reference, of the right density, and independent in every direction."""

import itertools

import pytest
import torch
from scipy import stats

from tests.models.llama.fused.reference_kernels import attention_mask, odd_hash, random_keys, residual_mask

P = 0.1
LENGTH, WIDTH, HEADS, KV_HEADS = 128, 192, 6, 2


def _dropped(mask):
    return (mask == 0).double()


def _correlation_is_noise(a, b):
    """The correlation of two equally shaped sets of drops is within five standard errors of 0."""
    a, b = _dropped(a).flatten() - P, _dropped(b).flatten() - P
    assert abs((a * b).mean().item()) < 5 * P * (1 - P) / len(a) ** 0.5


def test_kernel_writes_the_hashes_of_the_reference(device):
    from stochastok_cli.models.llama.fused.dropout import attention_hashes, attention_stream

    keys = random_keys(3, device)
    query_hash = torch.empty(3, HEADS, LENGTH, dtype=torch.int32, device=device)
    key_hash = torch.empty(3, KV_HEADS, LENGTH, dtype=torch.int32, device=device)
    attention_hashes(keys, 2, query_hash, key_hash)
    for actual, heads, stream in (
        (query_hash, HEADS, attention_stream(2)),
        (key_hash, KV_HEADS, attention_stream(2) + 1),
    ):
        index = torch.arange(heads * LENGTH, device=device).view(heads, LENGTH)
        assert torch.equal(actual.long() & 0xFFFFFFFF, odd_hash(keys, stream, index))


def test_embedding_kernel_drops_what_the_reference_drops(device, dtype):
    from stochastok_cli.models.llama.fused.embedding import embed

    keys, rows = random_keys(2, device), 2 * LENGTH
    x, rstd = torch.empty(rows, WIDTH, dtype=dtype, device=device), torch.empty(rows, device=device)
    ids = torch.zeros(rows, dtype=torch.int32, device=device)
    embed(ids, torch.ones(1, WIDTH, dtype=dtype, device=device), keys, P, LENGTH, x, rstd)
    expected = residual_mask(keys, 0, LENGTH, WIDTH, P).view(rows, WIDTH)
    torch.testing.assert_close(x.float(), expected, atol=0, rtol=5e-3)


def test_hashes_are_odd_uniform_and_differ_between_streams():
    keys = random_keys(64, torch.device("cpu"))
    hashes = torch.stack([odd_hash(keys, stream, torch.arange(512)) for stream in range(16)])
    assert (hashes % 2 == 1).all()
    counts = torch.bincount((hashes >> 20).flatten(), minlength=4096)
    assert stats.chisquare(counts).pvalue > 1e-4
    for shift in (1, 9):  # low bits too
        counts = torch.bincount(((hashes >> shift) & 255).flatten(), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    distinct = len(hashes.unique())
    pairs = hashes.numel() ** 2 / 2
    assert hashes.numel() - distinct < 3 * pairs / 2**31 + 10  # as many collisions as 31 random bits have


def test_density_is_that_of_the_probability():
    keys = random_keys(400, torch.device("cpu"), seed=1)
    mask = _dropped(residual_mask(keys, 0, LENGTH, WIDTH, P))
    n = mask.numel()
    assert abs(mask.mean().item() - P) < 4 * (P * (1 - P) / n) ** 0.5
    for dim, size in ((1, WIDTH), (2, LENGTH)):  # each window's columns and rows: as spread as binomials are
        counts = mask.sum(dim).long().flatten()
        expected = stats.binom(LENGTH if dim == 1 else WIDTH, P)
        edges = [int(expected.ppf(q)) for q in (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)]
        cells = torch.bucketize(counts, torch.tensor(edges))
        observed = torch.bincount(cells, minlength=len(edges) + 1).double()
        cdf = [0.0, *expected.cdf(edges), 1.0]
        wanted = torch.tensor([b - a for a, b in itertools.pairwise(cdf)]) * len(counts)
        assert stats.chisquare(observed, wanted).pvalue > 1e-4, size


@pytest.mark.parametrize("kind", ["residual", pytest.param("attention", marks=pytest.mark.slow)])
def test_neighbours_in_every_direction_are_independent(kind):
    keys = random_keys(60, torch.device("cpu"), seed=2)
    consecutive = torch.arange(60)  # keys that differ in a few low bits
    for k in (keys, consecutive, consecutive << 32):
        if kind == "residual":
            masks = [residual_mask(k, stream, LENGTH, WIDTH, P) for stream in (0, 4, 8)]
        else:
            masks = [attention_mask(k, layer, HEADS, KV_HEADS, LENGTH, P) for layer in (0, 1, 2)]
            _correlation_is_noise(masks[0][:, 0], masks[0][:, 1])  # heads that share the hashes of keys
            _correlation_is_noise(masks[0][:, 0], masks[0][:, HEADS // KV_HEADS])  # and that do not
            _correlation_is_noise(masks[0][..., :64, 64:], masks[0][..., 64:, :64].transpose(-1, -2))
        m = masks[0]
        for lag in (1, 2, 7, 64):
            _correlation_is_noise(m[..., lag:, :], m[..., :-lag, :])
            _correlation_is_noise(m[..., lag:], m[..., :-lag])
        _correlation_is_noise(m[..., 1:, 1:], m[..., :-1, :-1])
        _correlation_is_noise(m[1:], m[:-1])  # windows
        for a, b in itertools.combinations(masks, 2):  # layers
            _correlation_is_noise(a, b)


def test_four_corners_of_rectangles_are_independent():
    """Products of row and column hashes could make the fourth corner of a rectangle depend on the other three."""
    keys = random_keys(300, torch.device("cpu"), seed=3)
    m = _dropped(residual_mask(keys, 0, LENGTH, WIDTH, P)) - P
    corners = m[:, 0::2, 0::2] * m[:, 1::2, 0::2] * m[:, 0::2, 1::2] * m[:, 1::2, 1::2]
    # Each corner has variance p (1 - p), so their product has its fourth power.
    assert abs(corners.mean().item()) < 5 * (P * (1 - P)) ** 2 / corners.numel() ** 0.5


def test_all_pairs_of_rows_and_of_columns_are_as_correlated_as_chance_has_it():
    m = (_dropped(residual_mask(random_keys(40, torch.device("cpu"), seed=4), 0, 512, 512, P)) - P) / (
        P * (1 - P)
    ) ** 0.5
    for matrix in (m, m.transpose(1, 2)):
        correlations = matrix @ matrix.transpose(1, 2) / 512**0.5  # of standard normal size
        rows, columns = torch.triu_indices(512, 512, offset=1)
        squares = correlations[:, rows, columns].square()
        # Each has mean 1; pairs of one mask are uncorrelated, and the variance of a square is about 2 + kurtosis / n.
        n = squares.numel()
        assert abs(squares.mean().item() - 1) < 6 * (2.2 / n) ** 0.5
        assert squares.max().item() < 60  # 7.7 standard deviations in 5 million pairs


def test_masks_depend_on_the_key_and_not_on_the_place_in_the_batch():
    keys = random_keys(4, torch.device("cpu"), seed=5)
    whole = residual_mask(keys, 4, LENGTH, WIDTH, P)
    assert torch.equal(whole[2:], residual_mask(keys[2:], 4, LENGTH, WIDTH, P))
    assert not torch.equal(whole[0], whole[1])
