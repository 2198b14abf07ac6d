"""The whole step against the modules of the model and `head_loss`."""

import copy
import dataclasses
import itertools

import pytest
import torch

from stochastok_cli.models.llama.model import Llama
from tests.models.llama.fused.reference_kernels import (
    errors_of,
    fused_config,
    gradients_of,
    hidden_states,
    packed_rows,
    random_keys,
    reference_gradients,
    relative_error,
)
from tests.models.small_models import random_ids, sharp_model

WINDOWS = 2


def _model(config, device):
    """Weights that bfloat16 holds exactly, so that only activations are rounded."""
    model = sharp_model(config).to(device).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def _batch(config, device, packed=False):
    length = config.context_window
    ids = random_ids(WINDOWS, length + 1, vocab_size=config.vocab_size).to(device)
    if packed:
        segment_start, token_weights = packed_rows(WINDOWS, length, device)
    else:
        segment_start, token_weights = None, torch.rand(WINDOWS, length, device=device) / length
    return ids, token_weights, segment_start, random_keys(WINDOWS, device)


def _step(model, dropout, dtype, **options):
    from stochastok_cli.models.llama.fused.step import LlamaFusedStep

    return LlamaFusedStep(model, dropout, dtype=dtype, **options)


def _assert_close(actual, expected, tolerance):
    assert not {name: error for name, error in errors_of(actual, expected).items() if not error < tolerance}


def test_reference_equals_the_model_without_dropout():
    model = sharp_model(fused_config())
    ids, _, segment_start, keys = _batch(model.config, torch.device("cpu"), packed=True)
    torch.testing.assert_close(
        hidden_states(model, ids[:, :-1], segment_start, keys, 0.0), model(ids[:, :-1], segment_start)
    )


@pytest.mark.parametrize(
    ("packed", "dropout", "head_dim", "tied"),
    [
        (True, 0.1, 32, True),
        *(
            pytest.param(packed, dropout, *shape, marks=pytest.mark.slow)
            for packed, dropout, shape in itertools.product(
                [False, True], [0.0, 0.1], [(32, True), (64, False), (128, True)]
            )
            if (packed, dropout, *shape) != (True, 0.1, 32, True)
        ),
    ],
)
def test_loss_and_gradients_equal_the_reference(packed, dropout, head_dim, tied, device, dtype, tolerance):
    model = _model(fused_config(head_dim=head_dim, tied=tied), device)
    batch = _batch(model.config, device, packed)
    ids, token_weights, segment_start, keys = batch
    # The rounding of float32 is less than that of bfloat16, and as much as that of the kernels in float32.
    exact = torch.float64 if dtype == torch.float32 else torch.float32
    exact_model = copy.deepcopy(model).to(exact)
    expected = reference_gradients(exact_model, ids, token_weights.to(exact), segment_start, keys, dropout)
    allowed = dict.fromkeys(("loss", *expected[1]), tolerance)
    if dtype == torch.bfloat16:  # these weights are large: the measure is the error of the model's modules in bfloat16
        rounded = errors_of(reference_gradients(model, *batch, dropout, rounded=True), expected)
        allowed = {name: max(tolerance, 2 * error) for name, error in rounded.items()}
    model.zero_grad()
    loss = _step(model, dropout, dtype).loss_and_gradients(*batch)
    errors = errors_of((loss, gradients_of(model)), expected)
    assert not {name: (error, allowed[name]) for name, error in errors.items() if not error < allowed[name]}


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
def test_the_loss_alone_is_without_dropout_and_leaves_the_gradients_alone(packed, device, dtype, tolerance):
    model = _model(fused_config(), device)
    ids, token_weights, segment_start, keys = _batch(model.config, device, packed)
    expected, _ = reference_gradients(model, ids, token_weights, segment_start, keys, 0.0)
    model.zero_grad()
    step = _step(model, 0.1, dtype)
    num_loss_tokens = int((token_weights != 0).sum())
    for bound in (None, num_loss_tokens, num_loss_tokens + 7):
        loss = step.loss(ids, token_weights, segment_start, num_loss_tokens=bound)
        assert relative_error(loss, expected) < tolerance
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
def test_windows_may_be_split_and_merged(packed, device, dtype, tolerance):
    model = _model(fused_config(layers=1), device)
    ids, token_weights, segment_start, keys = _batch(model.config, device, packed)
    merged = _step(model, 0.1, dtype).loss_and_gradients(ids, token_weights, segment_start, keys)
    expected = merged, gradients_of(model)

    split = _step(model, 0.1, dtype, micro_batch_size=1, max_head_rows=100)
    model.zero_grad()
    loss = split.loss_and_gradients(ids, token_weights, segment_start, keys)
    _assert_close((loss, gradients_of(model)), expected, tolerance / 2)

    model.zero_grad()
    losses = []
    for i in range(WINDOWS):
        part = slice(i, i + 1)
        starts = None if segment_start is None else segment_start[part]
        losses.append(split.loss_and_gradients(ids[part], token_weights[part], starts, keys[part]))
    _assert_close((sum(losses), gradients_of(model)), expected, tolerance / 2)


@pytest.mark.slow
def test_tokens_of_weight_0_can_be_left_out(device, dtype, tolerance):
    model = _model(fused_config(layers=1), device)
    batch = _batch(model.config, device, packed=True)
    step = _step(model, 0.1, dtype)
    expected = step.loss_and_gradients(*batch), gradients_of(model)
    num_loss_tokens = int((batch[1] != 0).sum())
    for bound in (num_loss_tokens, num_loss_tokens + 7):
        model.zero_grad()
        loss = step.loss_and_gradients(*batch, num_loss_tokens=bound)
        _assert_close((loss, gradients_of(model)), expected, tolerance / 2)


@pytest.mark.slow
def test_gradients_are_added_to_those_of_the_parameters(device, dtype, tolerance):
    model = _model(fused_config(layers=1), device)
    batch = _batch(model.config, device)
    flat = torch.zeros(model.num_parameters(), device=device)
    start = 0
    for parameter in model.parameters():
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    step = _step(model, 0.1, dtype)
    step.loss_and_gradients(*batch)
    once = flat.clone()
    step.loss_and_gradients(*batch)
    assert relative_error(flat, 2 * once) < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
@pytest.mark.parametrize("options", [{}, {"micro_batch_size": 1}, {"activation_checkpointing": True}], ids=str)
def test_captured_kernels_compute_what_launched_ones_do(packed, options):
    """On other windows, masks and weights than those that were captured, and between calls without gradients."""
    device = torch.device("cuda")
    model = _model(fused_config(layers=3), device)
    step = _step(model, 0.1, torch.bfloat16, **options)
    step.loss_and_gradients(*_batch(model.config, device, packed))
    captured = step._captured
    assert captured is not None
    for i in range(3):
        ids, token_weights, segment_start, keys = _batch(model.config, device, packed)
        batch = ids.roll(i + 1, 0), token_weights, segment_start, keys + i
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        expected, gradients = _launched(model, batch, **options)
        model.zero_grad()
        reported = []
        loss = step.loss_and_gradients(*batch, on_gradients_ready=reported.append)
        assert step._captured is captured and reported == [2, 1, 0]
        assert torch.equal(loss, expected)
        for name, gradient in gradients_of(model).items():
            if name == "embedding.weight":  # a sum of atomic additions, in any order
                assert relative_error(gradient, gradients[name]) < 1e-5
            else:
                assert torch.equal(gradient, gradients[name]), name
        step.loss(*batch[:3])
        again = step.loss_and_gradients(*batch)  # adds to the gradients
        assert torch.equal(again, loss)
        _assert_close((loss, gradients_of(model)), (loss, {name: 2 * g for name, g in gradients.items()}), 1e-5)


@pytest.mark.gpu
def test_kernels_are_captured_again_for_other_shapes_and_other_gradients():
    device = torch.device("cuda")
    model = _model(fused_config(layers=1), device)
    batch = _batch(model.config, device)
    one = tuple(None if part is None else part[:1] for part in batch)
    step = _step(model, 0.1, torch.bfloat16)
    for called in (batch, one, one, batch, batch, batch):
        expected, gradients = _launched(model, called)
        model.zero_grad()
        assert torch.equal(step.loss_and_gradients(*called), expected)
        _assert_close((expected, gradients_of(model)), (expected, gradients), 1e-5)
    captured = step._captured
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(3):
        assert torch.equal(step.loss_and_gradients(*batch), expected)
    assert step._captured is not captured
    _assert_close((expected, gradients_of(model)), (expected, {name: 3 * g for name, g in gradients.items()}), 1e-5)


def _launched(model, batch, **options):
    """Loss and gradients by a step whose kernels are launched one by one."""
    model.zero_grad()
    step = _step(model, 0.1, torch.bfloat16, **options)
    step.uses_cuda_graphs = False
    return step.loss_and_gradients(*batch), gradients_of(model)


def test_a_step_without_memory_for_its_graphs_goes_on_without_them(device, dtype, monkeypatch):
    from stochastok_cli.errors import Notice
    from stochastok_cli.models.llama.fused import step as module

    def out_of_memory(launch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model = _model(fused_config(layers=1, context_window=64), device)
    ids, token_weights, segment_start, keys = _batch(model.config, device)
    batch = ids[:1], token_weights[:1], segment_start, keys[:1]
    expected, gradients = _step(model, 0.1, dtype).loss_and_gradients(*batch), gradients_of(model)
    model.zero_grad()
    monkeypatch.setattr(module, "CapturedKernels", out_of_memory)
    step = _step(model, 0.1, dtype)
    step.uses_cuda_graphs = True
    with pytest.warns(Notice, match="no memory for CUDA graphs"):
        loss = step.loss_and_gradients(*batch)
    assert torch.equal(loss, expected) and not step.uses_cuda_graphs
    _assert_close((loss, gradients_of(model)), (expected, gradients), 1e-5)


@pytest.mark.slow
def test_steps_of_many_micro_batches_or_of_several_shapes_in_turn_are_not_captured(device, dtype, monkeypatch):
    from stochastok_cli.models.llama.fused import step as module

    captured = []
    monkeypatch.setattr(module, "CapturedKernels", lambda launch: captured.append(launch))
    monkeypatch.setattr(module, "MAX_CAPTURED_MICRO_BATCHES", 1)
    model = _model(fused_config(layers=1, context_window=64), device)
    ids, token_weights, _, keys = _batch(model.config, device)

    def call(step, windows):
        step._captured = None  # what the lambda has made cannot be replayed
        step.loss_and_gradients(ids[:windows], token_weights[:windows], None, keys[:windows])
        return len(captured)

    step = _step(model, 0.1, dtype, micro_batch_size=1)
    step.uses_cuda_graphs = True
    assert [call(step, 2), call(step, 2)] == [0, 0]
    step = _step(model, 0.1, dtype)
    step.uses_cuda_graphs = True
    assert [call(step, windows) for windows in (2, 1, 2, 1, 1)] == [1, 1, 1, 1, 2]


@pytest.mark.slow
def test_blocks_are_reported_when_their_gradients_are_complete(device, dtype):
    model = _model(fused_config(layers=3), device)
    reported = []

    def complete(layer):
        reported.append((layer, [p.grad.clone() for p in model.layers[layer].parameters()]))

    _step(model, 0.1, dtype, micro_batch_size=1).loss_and_gradients(
        *_batch(model.config, device), on_gradients_ready=complete
    )
    assert [layer for layer, _ in reported] == [2, 1, 0]
    for layer, gradients in reported:
        for reported_grad, parameter in zip(gradients, model.layers[layer].parameters(), strict=True):
            assert reported_grad.any() and torch.equal(reported_grad, parameter.grad)


@pytest.mark.slow
def test_keys_may_be_unsigned(device, dtype):
    model = _model(fused_config(layers=1), device)
    ids, token_weights, segment_start, keys = _batch(model.config, device)
    step = _step(model, 0.1, dtype)
    losses = [step.loss_and_gradients(ids, token_weights, segment_start, k) for k in (keys, keys.view(torch.uint64))]
    torch.testing.assert_close(losses[0], losses[1])


def test_shipped_model_is_supported_but_for_the_device():
    from stochastok_cli.config import ModelConfig
    from stochastok_cli.models.llama.fused.support import unsupported, unsupported_shape

    assert unsupported_shape(ModelConfig()) is None
    assert "NVIDIA" in unsupported(ModelConfig(), torch.device("cpu"))


def test_shapes_that_do_not_fit_are_named():
    from stochastok_cli.models.llama.fused.support import unsupported_shape

    assert "context windows of a multiple of 64" in unsupported_shape(fused_config(context_window=100))
    assert "heads of width 32, 64, 128, and these have 16" in unsupported_shape(fused_config(head_dim=16))
    assert unsupported_shape(fused_config(head_dim=128)) is None
    with torch.device("meta"):
        assert Llama(fused_config()).num_parameters() > 0


@pytest.mark.slow
@pytest.mark.parametrize("trained", [False, True], ids=["before training", "beside training"])
def test_the_loss_of_a_batch_is_computed_in_parts_with_the_memory_of_one_layer(
    trained, device, dtype, tolerance, monkeypatch
):
    from stochastok_cli.models.llama.fused import step as module

    model = _model(fused_config(context_window=64), device)
    ids, token_weights, _, keys = _batch(model.config, device)
    whole = _step(model, 0.1, dtype).loss(ids, token_weights, None)

    step = _step(model, 0.1, dtype, micro_batch_size=None if trained else 1)
    if trained:  # on one window at a time
        step.loss_and_gradients(ids[:1], token_weights[:1], None, keys[:1])
    made, counts, allocate, forward = [], [], module.allocate_one_layer, module.passes.forward

    def counted(network, activations, batch, dropout):
        counts.append(len(batch.inputs))
        forward(network, activations, batch, dropout)

    def allocated(*arguments):
        made.append(allocate(*arguments))
        return made[-1]

    held = list(step._buffers.values())
    monkeypatch.setattr(module.passes, "forward", counted)
    monkeypatch.setattr(module, "allocate_one_layer", allocated)
    assert relative_error(step.loss(ids, token_weights, None), whole) < tolerance
    assert counts == [1, 1]
    assert list(step._buffers.values()) == held  # those of training are still there, and no others
    assert len(made) == (0 if trained else 1)
    assert all(len({id(layer.gate_up) for layer in activations.layers}) == 1 for activations in made)


def test_memory_is_measured_when_calls_of_other_sizes_hold_none(device, dtype, monkeypatch):
    from stochastok_cli.models.llama.fused import memory
    from stochastok_cli.models.llama.fused import step as module

    config = fused_config(layers=1)
    step = _step(_model(config, device), 0.1, dtype)
    assert step._micro_batches(7, 64).size == 7  # all fit, or there is no GPU

    step = _step(_model(config, device), 0.1, dtype)
    step._buffers[5, 64] = None
    monkeypatch.setattr(step, "device", torch.device("cuda"))
    free = (memory.head_bytes(config, 4096) + 4 * memory.window_bytes(config, 64, recompute=True)) / memory.USABLE
    monkeypatch.setattr(module, "free_memory", lambda device: free if not step._buffers else 0)
    assert step._micro_batches(10, 64).size == 4  # 4, 4 and 2 rather than 9 and 1


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["causal", "packed"])
def test_recomputed_activations_have_the_same_bits(packed, device, dtype):
    model = _model(fused_config(layers=3, context_window=64), device)
    batch = _batch(model.config, device, packed)
    expected = _step(model, 0.1, dtype).loss_and_gradients(*batch), gradients_of(model)
    model.zero_grad()
    step = _step(model, 0.1, dtype, activation_checkpointing=True)
    loss, gradients = step.loss_and_gradients(*batch), gradients_of(model)
    assert torch.equal(loss, expected[0])
    for name, gradient in gradients.items():
        if device.type == "cuda" and name == "embedding.weight":  # a sum of atomic additions, in any order
            assert relative_error(gradient, expected[1][name]) < 1e-5
        else:
            assert torch.equal(gradient, expected[1][name]), name
    assert step.recomputes_activations
    (buffers,) = step._buffers.values()
    assert len({layer.residual.data_ptr() for layer in buffers.layers}) == 3
    assert len({layer.gate_up.data_ptr() for layer in buffers.layers}) == 1


def test_a_training_step_with_the_fused_kernels_counts_the_moments_and_may_recompute(device):
    """The moments exist before the kernels take the free memory."""
    from stochastok_cli.config import config_from_dict
    from stochastok_cli.models.llama import LLAMA
    from stochastok_cli.training.backends import uses_fused
    from stochastok_cli.training.distributed import DistributedContext
    from stochastok_cli.training.trainer import TrainingStep

    config = config_from_dict({"trainer": {"training": {"activation_checkpointing": True}}}, "this test")
    anywhere = dataclasses.replace(LLAMA, fused_unsupported=lambda config, device: None)
    assert uses_fused(anywhere, config.model, config, device)
    model = Llama(fused_config(layers=1)).to(device)
    step = TrainingStep(model, config, DistributedContext(0, 1, device), fused=True)
    assert set(step.optimizer.state) == set(model.parameters())
    assert step.backend.recomputes_activations
