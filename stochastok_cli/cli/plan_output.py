"""The output of `stochastok train --plan`."""

import dataclasses
import json
from pathlib import Path

from stochastok_cli.errors import count_of
from stochastok_cli.training.events import format_duration
from stochastok_cli.training.plan import Plan


def nothing_left_json(folder: Path) -> str:
    """The JSON object for a run that is complete."""
    return json.dumps({"schema": 1, "folder": str(folder), "iterations": 0, "seconds": 0.0})


def plan_json(plan: Plan) -> str:
    """A JSON object with the plan's fields and the quantities derived from them."""
    derived = {
        "folder": str(plan.folder),
        "tokens": plan.tokens,
        "flops": plan.tokens * plan.flops_per_token,
        "training_seconds": plan.training_seconds,
        "evaluation_seconds": plan.evaluation_seconds,
        "seconds": plan.seconds,
    }
    return json.dumps({"schema": 1, **dataclasses.asdict(plan), **derived})


def plan_table(plan: Plan) -> str:
    """Lines of a title and a text."""
    lines = _lines(plan)
    width = max(len(title) for title, _ in lines)
    return "\n".join(f"{title:{width}}  {text}" for title, text in lines)


def _lines(plan: Plan) -> list[tuple[str, str]]:
    devices = f"{plan.ranks} × {plan.device}" if plan.ranks > 1 else plan.device
    epochs = f" ({plan.tokens / plan.dataset_tokens:.2f} epochs)" if plan.dataset_tokens else ""
    peak = f", {plan.utilization:.0%} of peak" if plan.utilization is not None else ""
    compiling = f", after {format_duration(plan.compile_seconds)} of compiling" if plan.compile_seconds >= 1 else ""
    disk = plan.checkpoints * plan.checkpoint_bytes
    fraction = plan.evaluation_seconds / max(plan.seconds, 1e-9)
    training = format_duration(plan.training_seconds)
    warning = "" if disk < plan.disk_free else ": NOT ENOUGH"
    return [
        ("run", str(plan.folder)),
        ("model", f"{plan.parameters:,} parameters"),
        ("device", f"{devices}, {plan.kernels} kernels"),
        ("training", f"{plan.iterations:,} iterations of {plan.tokens_per_iteration:,} tokens"),
        ("", f"{plan.tokens:,} tokens{epochs}, {plan.tokens * plan.flops_per_token:.2e} FLOPs"),
        *([("expansion", plan.expansion)] if plan.expansion else []),
        (
            "speed",
            f"{plan.seconds_per_iteration * 1e3:,.1f} ms an iteration, "
            f"{plan.tokens_per_iteration / plan.seconds_per_iteration:,.0f} tokens/s{peak}{compiling}",
        ),
        ("memory", f"{_size(plan.memory)} of {_size(plan.memory_total)}, {_windows_at_once(plan)}"),
        *([("host memory", _host_copies(plan))] if plan.host_copies else []),
        (
            "disk",
            f"{count_of(plan.checkpoints, 'checkpoint')} of {_size(plan.checkpoint_bytes)}; "
            f"{_size(plan.disk_free)} free{warning}",
        ),
        ("evaluation", f"{plan.evaluations} times {plan.seconds_per_evaluation:.1f} s, {fraction:.0%} of the time"),
        ("time", f"{training} training + {format_duration(plan.evaluation_seconds)} evaluation"),
        ("", f"= {format_duration(plan.seconds)}"),
    ]


def _windows_at_once(plan: Plan) -> str:
    again = ", activations computed again in the backward pass" if plan.recomputes_activations else ""
    return f"{count_of(plan.windows_at_once, 'window')} at once{again}"


def _host_copies(plan: Plan) -> str:
    warning = "" if plan.host_copies < plan.host_memory_total else ": NOT ENOUGH"
    return f"{_size(plan.host_copies)} of {_size(plan.host_memory_total)} for the copies of `async_save`{warning}"


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
