"""Finds what makes random numbers in a module, on its syntax tree.

Names are resolved through every form of import and alias. Looking a module up by a string (`import_module("random")`,
`getattr(numpy, "random")`) and in-place methods of tensors (`x.uniform_()`) count as well.
"""

import ast

MODULES = ("random", "secrets", "uuid", "numpy.random", "torch.random", "scipy.stats")
_FUNCTIONS_OF = {
    "os": ("urandom", "getrandom"),
    "torch": (
        "Generator",
        "manual_seed",
        "seed",
        "initial_seed",
        "get_rng_state",
        "set_rng_state",
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "randint",
        "randint_like",
        "randperm",
        "bernoulli",
        "multinomial",
        "normal",
        "poisson",
    ),
    "torch.cuda": (
        "manual_seed",
        "manual_seed_all",
        "seed",
        "seed_all",
        "get_rng_state",
        "set_rng_state",
        "get_rng_state_all",
        "set_rng_state_all",
    ),
    "torch.nn.init": (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "xavier_uniform_",
        "xavier_normal_",
        "kaiming_uniform_",
        "kaiming_normal_",
        "orthogonal_",
        "sparse_",
    ),
    "triton.language": ("rand", "randn", "randint", "rand4x", "randn4x", "randint4x", "philox"),
}
FUNCTIONS = {f"{module}.{name}" for module, names in _FUNCTIONS_OF.items() for name in names}
METHODS = {"uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_", "log_normal_", "cauchy_"}
TYPES = {"numpy.random.Generator"}  # may be named in annotations, not called


def random_sources(source: str) -> list[str]:
    """The dotted names of everything in a module that makes random numbers, in the order of the text."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    uses = [name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for name in _imports(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and not isinstance(parents[node], ast.Attribute):
            name = _dotted(node, aliases)
            called = isinstance(parents[node], ast.Call) and parents[node].func is node
            if name and not (name in TYPES and not called):
                uses.append(name)
        if isinstance(node, ast.Call):
            uses += _looked_up(node, aliases)
        if isinstance(node, ast.Attribute) and node.attr in METHODS and not _dotted(node, aliases):
            uses.append(f".{node.attr}")
    return sorted({name for name in uses if _is_random(name)})


def _is_random(name: str) -> bool:
    return name.startswith(".") or name in FUNCTIONS or any(name == m or name.startswith(f"{m}.") for m in MODULES)


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for. Aliases of two files are not mixed: a tree is one module."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            aliases.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):  # r = np.random, one level of renaming after the other
        if isinstance(node, ast.Assign) and (value := _dotted(node.value, aliases)):
            aliases.update({target.id: value for target in node.targets if isinstance(target, ast.Name)})
    return aliases


def _imports(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    names = [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name not in TYPES]


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """`np.random.default_rng` as `numpy.random.default_rng`; None for what does not begin with an imported name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return None
    return ".".join([aliases[node.id], *reversed(parts)])


def _looked_up(call: ast.Call, aliases: dict[str, str]) -> list[str]:
    """Modules and attributes that a call finds by a string."""
    name = _dotted(call.func, aliases) or (call.func.id if isinstance(call.func, ast.Name) else "")
    strings = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if name in ("__import__", "importlib.import_module") and strings:
        return strings[:1]
    if name == "getattr" and strings and (owner := _dotted(call.args[0], aliases)):
        return [f"{owner}.{strings[0]}"]
    return []
