"""Muon: the update of `torch.optim.Muon`, which weights it has, clipping, skipping, runs and refusals."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.errors import UserError
from stochastok_cli.models.base import load_model
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training import muon
from stochastok_cli.training.data import open_data
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.muon import MuonWithAuxAdamW, newton_schulz
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer, muon_weights, optimizer_tensors
from stochastok_cli.training.plan import plan
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.schedules import learning_rate
from stochastok_cli.training.train import train
from stochastok_cli.training.trainer import TrainingStep
from tests.models.huggingface_families import CONFIGS, random_model
from tests.training.runs import metrics, tensors, train_at_once_and_in_parts
from tests.training.test_data_parallel import backward, run_on_two_ranks
from tests.training.test_huggingface import save

MUON = "trainer.optimizer.name=muon"
KEPT, SKIPPED = torch.tensor(False), torch.tensor(True)


@pytest.fixture
def model(configured):
    torch.manual_seed(0)
    return Llama(configured().model)


def options(**changes):
    config = OptimizerConfig(**changes)
    return {
        "lr": config.muon_lr,
        "weight_decay": config.muon_weight_decay,
        **{name: getattr(config, name) for name in ("momentum", "nesterov", "ns_coefficients", "ns_steps")},
        "adjust_lr_fn": config.adjust_lr_fn,
    }


def random_parameter(*shape, dtype=torch.float32):
    return nn.Parameter(torch.randn(*shape).to(dtype))


OTHER = {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "ns_coefficients": (3.0, -3.2, 1.2), "muon_lr": 0.3}


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, torch.float32),
        ({}, torch.bfloat16),
        # Not in bfloat16, in which torch 2.13 divides the momentum itself by its norm.
        ({"nesterov": False, "momentum": 0.8, "muon_weight_decay": 0.0}, torch.float32),
        (OTHER, torch.float32),
        (OTHER, torch.bfloat16),
    ],
)
def test_updates_are_those_of_torch(changes, dtype):
    torch.manual_seed(0)
    shapes = [(24, 24), (24, 40), (40, 24), (24, 40), (5, 24)]
    ours = [random_parameter(*shape, dtype=dtype) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    rest = random_parameter(3)
    optimizer = MuonWithAuxAdamW(
        torch.optim.AdamW([rest], fused=True),
        {weight: LinearWeight((len(weight),)) for weight in ours},
        options(**changes),
    )
    expected = torch.optim.Muon(theirs, **options(**changes))
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        expected.step()
    tolerance = {torch.float32: {"rtol": 1e-4, "atol": 2e-4}, torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2}}[dtype]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **tolerance)
        momentum = expected.state[other]["momentum_buffer"]
        torch.testing.assert_close(optimizer.state[mine]["momentum_buffer"], momentum, **tolerance)
        assert momentum.dtype == dtype


def test_matrices_that_are_updated_together_may_be_few(model, monkeypatch):
    other = Llama(model.config)
    other.load_state_dict(model.state_dict())
    for each, most in ((model, muon.MOST_ELEMENTS), (other, 600)):  # all, or two of 16 x 16 and one of 32 x 16
        monkeypatch.setattr(muon, "MOST_ELEMENTS", most)
        optimizer = make_optimizer(each, OptimizerConfig(name="muon"))
        backward(each)
        optimizer.step()
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-4, atol=2e-4)


def test_the_iteration_makes_singular_values_nearly_equal():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(newton_schulz(torch.randn(3, 20, 60), OptimizerConfig().ns_coefficients, 5).float())
    assert values.min() > 0.6 and values.max() < 1.3
    assert not newton_schulz(torch.zeros(1, 4, 6), OptimizerConfig().ns_coefficients, 5).any()


def test_it_has_the_matrices_of_layers_and_adamw_the_rest(model):
    optimizer = make_optimizer(model, OptimizerConfig(name="muon", lr=0.01, muon_lr=0.04, weight_decay=0.3))
    decayed, plain, matrices = optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert {names[weight] for weight in matrices["params"]} == {
        f"layers.0.{name}.weight" for name in ("attention.qkv", "attention.output", "ffn.gate_up", "ffn.down")
    }
    assert [names[weight] for weight in decayed["params"]] == ["embedding.weight"]
    assert {names[weight] for weight in plain["params"]} == {name for name in names.values() if "norm" in name}
    assert [group["weight_decay"] for group in (decayed, plain, matrices)] == [0.3, 0.0, 0.1]
    assert [group["lr_scale"] for group in (decayed, plain, matrices)] == [1.0, 1.0, 4.0]


def test_projections_that_one_weight_holds_are_updated_as_matrices_of_their_own(model):
    apart = {}
    for weight, held in muon_weights(model).items():
        weight.grad = torch.randn_like(weight)
        apart[weight] = [nn.Parameter(matrix.detach().clone()) for matrix in held.matrices(weight)]
        for matrix, gradient in zip(apart[weight], held.matrices(weight.grad), strict=True):
            matrix.grad = gradient.clone()
    assert sorted(map(len, apart.values())) == [1, 1, 2, 3]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    make_optimizer(model, OptimizerConfig(name="muon")).step()
    torch.optim.Muon([matrix for matrices in apart.values() for matrix in matrices], **options()).step()
    for weight, matrices in apart.items():
        torch.testing.assert_close(weight.data, torch.cat([matrix.data for matrix in matrices]), rtol=1e-4, atol=2e-4)


def test_a_skipped_update_touches_neither_weights_nor_moments(model):
    optimizer = make_optimizer(model, OptimizerConfig(name="muon", lr=0.1))
    backward(model)
    clip_or_skip_update(optimizer, torch.tensor(1.0), 1.0, skip=KEPT)
    optimizer.step()
    state = [t.clone() for t in [*model.parameters(), *optimizer_tensors(model, optimizer).values()]]
    for value in (float("nan"), float("inf"), 1.0):
        for parameter in model.parameters():
            parameter.grad.fill_(value)
        clip_or_skip_update(optimizer, torch.tensor(value), 1.0, skip=SKIPPED)
        optimizer.step()
        after = [*model.parameters(), *optimizer_tensors(model, optimizer).values()]
        assert all(map(torch.equal, state, after))


def test_clipping_scales_what_goes_into_the_momentum(model):
    clipped = Llama(model.config)
    clipped.load_state_dict(model.state_dict())
    gradients = [[torch.randn_like(parameter) for parameter in model.parameters()] for _ in range(2)]
    norms, scales = (2.0, 0.25), (0.25, 1.0)  # at most 0.5
    for each, max_norm in ((model, 0), (clipped, 0.5)):
        optimizer = make_optimizer(each, OptimizerConfig(name="muon"))
        for gradient, norm, scale in zip(gradients, norms, scales, strict=True):
            for parameter, value in zip(each.parameters(), gradient, strict=True):
                parameter.grad = value.clone() if max_norm else value * scale
            clip_or_skip_update(optimizer, torch.tensor(norm), max_norm, skip=KEPT)
            optimizer.step()
    for one, other in zip(model.parameters(), clipped.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)


@pytest.mark.gpu
def test_a_step_on_a_gpu_is_that_of_a_cpu_and_never_waits(model):
    on_gpu = Llama(model.config).cuda()
    on_gpu.load_state_dict(model.state_dict())
    optimizers = [make_optimizer(each, OptimizerConfig(name="muon")) for each in (model, on_gpu)]
    norms = torch.tensor(2.0), torch.tensor(2.0, device="cuda")
    for iteration in range(4):  # the second one captures CUDA graphs
        for here, there in zip(model.parameters(), on_gpu.parameters(), strict=True):
            here.grad = torch.randn_like(here)
            there.grad = here.grad.cuda()
        for optimizer, norm in zip(optimizers, norms, strict=True):
            skip = torch.zeros_like(norm, dtype=torch.bool)
            torch.cuda.set_sync_debug_mode("error" if iteration > 1 and norm.is_cuda else "default")
            try:
                clip_or_skip_update(optimizer, norm, 0.5, skip=skip)
                optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
    for here, there in zip(model.parameters(), on_gpu.parameters(), strict=True):
        torch.testing.assert_close(here, there.cpu(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("numel", "ranks", "size"), [(2**20, 1, 32), (2**20, 8, 32), (2**20, 5, 30), (2**26, 8, 8)])
def test_matrices_that_are_updated_together_are_a_multiple_of_the_ranks(numel, ranks, size):
    assert muon.stack_size(numel, ranks) == size


SHARED = """
import torch
from torch import nn
from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.muon import MuonWithAuxAdamW
from tests.training.test_muon import options

SHAPES = [(24, 16), (24, 16), (24, 16), (16, 16), (8, 16)]  # of one shape are three, and one
with distributed_context("cpu") as world:
    torch.manual_seed(0)
    shared = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    alone = [nn.Parameter(weight.detach().clone()) for weight in shared]
    made = [
        MuonWithAuxAdamW(
            torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True),
            {weight: LinearWeight((len(weight),)) for weight in weights},
            options(),
            ranks,
        )
        for weights, ranks in ((shared, world), (alone, None))
    ]
    for _ in range(3):
        for one, other in zip(shared, alone, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in made:
            optimizer.step()
    for one, other in zip(shared, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)
        first = one.detach().clone()
        world.broadcast_([first])
        assert torch.equal(first, one)
    print("equal")
"""


@pytest.mark.slow
def test_ranks_share_the_work_and_have_equal_weights(tmp_path):
    assert run_on_two_ranks(tmp_path, SHARED).count("equal") == 2


def test_a_step_with_the_learning_rate_zero_changes_no_weight(model):
    optimizer = make_optimizer(model, OptimizerConfig(name="muon"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    backward(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(map(torch.equal, before, model.parameters()))
    assert all(tensor.any() for name, tensor in optimizer_tensors(model, optimizer).items() if "momentum" in name)


@pytest.mark.parametrize(
    "precision", [(), pytest.param(("trainer.training.weight_dtype=bfloat16",), marks=pytest.mark.slow)]
)
def test_a_run_learns_resumes_exactly_and_opens_in_transformers(configured, precision):
    straight, parts = train_at_once_and_in_parts(configured, MUON, *precision)
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)
    assert metrics(parts.folder) == metrics(straight.folder)
    names = set(load_file(straight.checkpoint / "optimizer.safetensors"))
    assert {f"layers.0.ffn.down.weight.{key}" for key in ("momentum_buffer", "exp_avg")} & names == {
        "layers.0.ffn.down.weight.momentum_buffer"
    }
    assert {f"embedding.weight.{key}" for key in ("exp_avg", "exp_avg_sq", "step")} <= names
    transformers = pytest.importorskip("transformers")
    opened, ids = transformers.AutoModelForCausalLM.from_pretrained(straight.checkpoint).float(), torch.arange(9)[None]
    ours = load_model(straight.checkpoint)
    torch.testing.assert_close(ours.logits(ours(ids)), opened.eval()(ids).logits, rtol=1e-3, atol=1e-3)


def test_both_learning_rates_follow_the_schedule(configured):
    config = configured(MUON, "trainer.optimizer.muon_lr=0.05", "trainer.training.lr_decay_iters=4")
    step, data = (
        TrainingStep(Llama(config.model), config, DistributedContext(0, 1, torch.device("cpu"))),
        open_data(config),
    )
    trainer = config.trainer
    for iteration in range(7):
        step(iteration, prefetch(data.train, [(iteration, index) for index in step.micro_batches], step.world.device))
        rate = learning_rate(iteration, trainer.optimizer, trainer.training)
        assert [group["lr"] for group in step.optimizer.param_groups] == pytest.approx([rate, rate, 5 * rate])
    assert rate == trainer.optimizer.min_lr


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_models_of_transformers(configured, tmp_path, vocabulary, family):
    torch.manual_seed(0)
    start = save(family, tmp_path / "start", vocabulary)
    straight, parts = train_at_once_and_in_parts(configured, MUON, f"trainer.checkpoint_name={start}")
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)


def test_projections_of_transformers_are_told_apart():
    from stochastok_cli.models.huggingface import HuggingFaceModel

    def sizes(model):
        wrapped = HuggingFaceModel(model.eval(), 32)
        names = {parameter: name.removeprefix("model.") for name, parameter in wrapped.named_parameters()}
        held = {names[weight]: held for weight, held in muon_weights(wrapped).items()}
        assert not any("embed" in name or "head" in name for name in held)
        return {name.split(".", 3)[3]: tuple(one) for name, one in held.items() if ".0." in name}

    assert sizes(random_model("gpt2")) == {
        "attn.c_attn.weight": ((32, 32, 32), True),
        "attn.c_proj.weight": ((32,), True),
        "mlp.c_fc.weight": ((128,), True),
        "mlp.c_proj.weight": ((32,), True),
    }
    transformers = pytest.importorskip("transformers")
    gated = {
        key: value for key, value in CONFIGS["mistral"].to_dict().items() if key in transformers.Phi3Config().to_dict()
    }
    phi3 = transformers.Phi3Config(**gated | {"model_type": "phi3", "pad_token_id": 0, "head_dim": 8})
    assert sizes(transformers.AutoModelForCausalLM.from_config(phi3, dtype=torch.float32)) == {
        "self_attn.qkv_proj.weight": ((32, 16, 16), False),
        "self_attn.o_proj.weight": ((32,), False),
        "mlp.gate_up_proj.weight": ((64, 64), False),
        "mlp.down_proj.weight": ((32,), False),
    }


def test_the_plan_counts_one_moment(configured):
    config = configured(MUON, "trainer.training.max_iters=1")
    checkpoint = train(config, run_name="one").checkpoint
    stored = sum(tensor.nbytes for file in checkpoint.glob("*.safetensors") for tensor in load_file(file).values())
    assert plan(config).checkpoint_bytes == pytest.approx(stored, rel=0.001)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([MUON, "trainer.parallel=shard"], "trainer.parallel = 'shard' must be replicate with"),
        ([MUON, "trainer.lora.rank=4", "trainer.checkpoint_name=x"], "trainer.lora.rank = 4 must be 0 with"),
        ([MUON, "trainer.optimizer.lr=0"], r"trainer.optimizer.lr = 0.0 must be above 0"),
        (["trainer.optimizer.name=lion"], "'lion' is not supported, only 'adamw' or 'muon'"),
        (["trainer.optimizer.ns_steps=0"], r"ns_steps = 0 must be in \[1, 100\)"),
        (["trainer.optimizer.ns_coefficients=[1, 2]"], r"ns_coefficients = \[1.0, 2.0\] must be three numbers"),
        (["trainer.optimizer.momentum=1"], r"momentum = 1.0 must be in \[0, 1\)"),
        (["trainer.optimizer.muon_lr=-1"], r"muon_lr = -1.0 must be in \[0, inf\)"),
    ],
)
def test_what_is_impossible_is_refused(configured, tmp_path, overrides, problem):
    with pytest.raises(UserError, match=problem):
        configured(*overrides)
    assert not (tmp_path / "runs").exists()


def test_a_model_without_linear_layers_is_refused(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(Llama, "linear_weights", lambda model, block: {})
    with pytest.raises(
        UserError, match="the model has no layers with matrices for Muon; set trainer.optimizer.name=adamw"
    ):
        train(configured(MUON))
    assert not (tmp_path / "runs").exists()


def test_a_run_that_diverges_stops_and_names_both_rates(configured, tmp_path):
    extreme = ("trainer.optimizer.muon_lr=1e30", "trainer.training.warmup_iters=0")
    intervals = ("trainer.training.checkpoint_interval=1", "trainer.training.log_interval=5")
    remedy = "lower trainer.optimizer.lr or trainer.optimizer.muon_lr, or raise trainer.training.warmup_iters"
    with pytest.raises(UserError, match=rf"iteration 2 is not finite; .*step_1; {remedy}"):
        train(configured(MUON, *extreme, *intervals), run_name="a")
    for state in ("model", "optimizer"):
        tensors_there = load_file(tmp_path / "runs" / "a" / "step_1" / f"{state}.safetensors").values()
        assert all(torch.isfinite(tensor).all() for tensor in tensors_there)


def test_a_run_keeps_its_optimizer(configured):
    train(configured("trainer.training.max_iters=1"), run_name="a")
    with pytest.raises(UserError, match="another configuration: trainer.optimizer.name .there 'adamw', now 'muon'."):
        train(configured(MUON), run_name="a")


def test_options_without_effect_are_noted(configured):
    from stochastok_cli.training.effective_config import notes_on_ineffective_values

    changed = ("trainer.optimizer.muon_lr=0.01", "trainer.optimizer.ns_steps=4")
    [note] = notes_on_ineffective_values(configured(*changed))
    assert (
        note == "no effect without trainer.optimizer.name=muon: trainer.optimizer.muon_lr, trainer.optimizer.ns_steps"
    )
    assert not notes_on_ineffective_values(configured(*changed, MUON))


TWO_RANKS = """
import sys
import torch
from stochastok_cli.config import load_config
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.data import open_data
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.prefetch import prefetch
from stochastok_cli.training.trainer import TrainingStep

config = load_config(sys.argv[1], ["trainer.optimizer.name=muon"])
with distributed_context("cpu") as world:
    torch.manual_seed(world.rank)
    step, data = TrainingStep(Llama(config.model), config, world), open_data(config)
    for i in range(4):
        step(i, prefetch(data.train, [(i, index) for index in step.micro_batches], world.device))
    weights = torch.cat([parameter.detach().flatten() for parameter in step.model.parameters()])
    first, second = world.all_gather_object(weights)
    assert torch.equal(first, second)
"""


@pytest.mark.slow
def test_ranks_keep_equal_weights(tmp_path, config_file):
    run_on_two_ranks(tmp_path, TWO_RANKS, str(config_file))
