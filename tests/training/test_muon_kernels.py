"""The Triton kernels of Muon compute what its passes over all matrices do. Without a GPU, Triton interprets them."""

import pytest
import torch

from stochastok_cli.training import muon
from tests.training.test_muon import options

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu(interpreted=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(3, 5), (40, 120)]  # less than a block and more


def matrices(shape):
    made = [[torch.randn(shape, device=DEVICE) for _ in range(3)] for _ in range(3)]
    return [muon._Matrix(*one) for one in made]


def copies(of):
    return [muon._Matrix(*(tensor.clone() for tensor in one)) for one in of]


@pytest.fixture
def kernels(monkeypatch):
    from stochastok_cli.training import muon_kernels

    monkeypatch.setattr(muon_kernels, "BLOCK", 1024)

    def use(used):
        monkeypatch.setattr(muon, "_kernels_for", lambda matrices: muon_kernels if used else None)

    return use


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("scale", [None, 4.0])
@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_they_compute_what_the_passes_compute(kernels, shape, nesterov, scale, skip):
    torch.manual_seed(0)
    group = options(nesterov=nesterov, momentum=0.9, muon_weight_decay=0.2)
    ours = matrices(shape)
    if skip:
        ours[1].gradient[0, 0] = torch.nan
    theirs, before = copies(ours), copies(ours)
    scale, skip = None if scale is None else torch.tensor(scale, device=DEVICE), torch.tensor(skip, device=DEVICE)
    direction = torch.randn(3, *shape, device=DEVICE).bfloat16()
    results = []
    for used, each in ((True, ours), (False, theirs)):
        kernels(used)
        results.append(muon.add_to_momenta(each, group, scale, skip))
        muon.move(each, direction, group, skip)
    torch.testing.assert_close(*results, rtol=2e-2, atol=1e-6)  # the interpreter rounds another way to 16 bits
    for one, other, old in zip(ours, theirs, before, strict=True):
        torch.testing.assert_close(one.momentum, other.momentum)
        torch.testing.assert_close(one.weight, other.weight)
        if skip:
            assert torch.equal(one.momentum, old.momentum) and torch.equal(one.weight, old.weight)
        else:
            assert not torch.equal(one.momentum, old.momentum) and not torch.equal(one.weight, old.weight)


def test_other_layouts_and_types_are_left_to_the_passes():
    from stochastok_cli.training import muon_kernels

    contiguous = torch.zeros(4, 4, device=DEVICE)
    assert muon_kernels.can_take([[contiguous] * 3]) == (DEVICE == "cuda")
    for other in (contiguous.bfloat16(), torch.zeros(4, 6, device=DEVICE)[:, :4]):
        assert not muon_kernels.can_take([[contiguous, other, contiguous]])
