"""Loss curves of 300 iterations by the fused kernels and by autograd. Needs a GPU, and takes about a minute."""

import pytest
import torch

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.head_loss import head_loss
from stochastok_cli.models.llama.model import Llama
from tests.models.llama.fused.reference_kernels import errors_of, gradients_of, reference_gradients

WINDOWS, LENGTH, ITERATIONS, DROPOUT, VOCAB = 16, 512, 300, 0.1, 50257


def _batch(iteration, device):
    """Half of the tokens are a function of the one before them; the others have a Zipf distribution."""
    generator = torch.Generator(device).manual_seed(iteration)
    zipf = 1.0 / (torch.arange(1000, device=device) + 2.7)
    drawn = torch.multinomial(zipf, WINDOWS * (LENGTH + 1), replacement=True, generator=generator)
    ids = drawn.view(WINDOWS, LENGTH + 1).clone()
    follows = torch.rand(ids.shape, device=device, generator=generator) < 0.5
    for t in range(1, LENGTH + 1):
        ids[:, t] = torch.where(follows[:, t], (ids[:, t - 1] * 7 + 13) % 1000, ids[:, t])
    return ids


def _train(batches, loss_and_gradients, model):
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    losses = []
    for i, ids in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 6e-4 * min(1, (i + 1) / 50)
        losses.append(loss_and_gradients(i, ids).detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return torch.stack(losses).tolist()


@pytest.mark.gpu
def test_loss_curves_agree(device):
    if device.type != "cuda":  # or one of another generation
        pytest.skip("300 iterations of the shipped model need a GPU")
    from stochastok_cli.models.llama.fused.step import LlamaFusedStep

    batches = [_batch(i, device) for i in range(ITERATIONS)]
    weights = torch.full((WINDOWS, LENGTH), 1 / (WINDOWS * LENGTH), device=device)
    torch.manual_seed(0)
    reference = Llama(ModelConfig(), DROPOUT).to(device).train()
    model = Llama(ModelConfig(), DROPOUT).to(device)
    model.load_state_dict(reference.state_dict())
    step = LlamaFusedStep(model, DROPOUT)

    def fused(i, ids):
        keys = torch.arange(i * WINDOWS, (i + 1) * WINDOWS, device=device)
        model.zero_grad(set_to_none=False)
        return step.loss_and_gradients(ids, weights, None, keys)

    def plain(_, ids):
        reference.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            hidden = reference(ids[:, :-1]).flatten(0, 1)
            loss = head_loss(
                hidden, reference.head_weight, ids[:, 1:].flatten(), weights.flatten(), num_loss_tokens=len(hidden)
            )
        loss.backward()
        return loss

    fused_losses, expected = _train(batches, fused, model), _train(batches, plain, reference)
    for i in (0, 9, 49, 99, 149, 199, 249, 299):
        print(f"iteration {i + 1}: fused {fused_losses[i]:.4f}, reference {expected[i]:.4f}")
    assert fused_losses[0] == pytest.approx(expected[0], rel=2e-3)
    for start in range(50, ITERATIONS, 50):
        means = [sum(curve[start : start + 50]) / 50 for curve in (fused_losses, expected)]
        steep = start == 50  # the loss falls by 2 nats in these 50 iterations, a little sooner or later
        assert means[0] == pytest.approx(means[1], rel=0.03 if steep else 0.01), start

    # On the trained weights, rounded as the kernels read them: loss and gradients against those of float32.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    batch = batches[0][:4], weights[:4], None, torch.arange(4, device=device)
    model.eval()
    exact = reference_gradients(model, *batch, dropout=0.0)
    rounded = errors_of(reference_gradients(model, *batch, dropout=0.0, rounded=True), exact)
    model.zero_grad()
    loss = LlamaFusedStep(model, 0.0).loss_and_gradients(*batch)
    errors = errors_of((loss, gradients_of(model)), exact)
    print("trained weights, relative error of loss and of the worst gradient: fused, reference in bfloat16")
    print([f"{e['loss']:.1e} {max(e.values()):.1e}" for e in (errors, rounded)])
    assert errors["loss"] < max(1e-4, 2 * rounded["loss"])
    assert max(errors.values()) < max(0.015, 2 * max(rounded.values()))
