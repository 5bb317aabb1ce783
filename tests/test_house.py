"""The structure that the code keeps: which package may import which, and how long things may be."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[1]

# From the ground up: each may import those before it.
LAYERS = {
    "triplet_jax": [
        ("errors", "xla"),
        ("arguments", "devices", "mining", "penalties", "schedules"),
        ("distances", "relations"),
        ("engine",),
        ("class_centres", "regularisers"),
        ("losses",),
        ("contrastive", "telemetry"),
        ("runs",),
        ("data",),
        ("models",),
        ("evaluation", "training"),
        ("curricula", "analysis"),
    ],
    "experiments": [("config",), ("command",), ("run",), ("sweeps",), ("tuning",)],
}
LONGEST_MODULE = 450
LONGEST_FUNCTION = 70
MOST_PARAMETERS = 10

# One topic, however many miners there are.
LONG_MODULES = {"triplet_jax.mining"}
# Their arguments are the public surface.
PUBLIC_LOSSES = {"triplet_loss", "of_triplets", "contrastive_loss"}


def modules(package):
    """Every module of a package by its name, parsed."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text())
    return found


LIBRARY, EXPERIMENTS = modules("triplet_jax"), modules("experiments")
CODE = LIBRARY | EXPERIMENTS


def imports(name, tree):
    """The modules of this project that a module imports."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            for target in (whole, node.module):
                if target in CODE and target != name:
                    yield target
                    break


ARROWS = {name: sorted(set(imports(name, tree))) for name, tree in CODE.items()}


def floor(name):
    """How high a module stands in its top-level package; programs stand above all."""
    package, _, rest = name.partition(".")
    for height, names in enumerate(LAYERS[package]):
        if rest.split(".")[0] in names:
            return height
    return len(LAYERS[package])


def functions(tree):
    """All functions of a module, methods and inner ones too."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]


def lines_of_code(function):
    """The lines of a function, without those of its signature and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function):
    """How many arguments a function names."""
    return sum(map(len, (function.args.posonlyargs, function.args.args, function.args.kwonlyargs)))


def test_no_arrow_points_upwards():
    wrong = []
    for name, targets in ARROWS.items():
        package = name.partition(".")[0]
        for target in targets:
            leaves = package == "triplet_jax" and target.startswith("experiments")
            inside = target.startswith(f"{package}.")
            if leaves or (inside and floor(target) > floor(name)):
                wrong.append(f"{name} imports {target}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    # Modules are taken away from the ground up; what is left at the end is a circle.
    left = {name: set(targets) for name, targets in ARROWS.items()}
    while ground := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ground:
            del left[name]
    assert not left


def test_no_module_is_too_long():
    lengths = {name: tree.body[-1].end_lineno for name, tree in CODE.items() if tree.body}
    assert {name for name, lines in lengths.items() if lines > LONGEST_MODULE} <= LONG_MODULES


def test_no_function_is_too_long():
    lengths = {
        f"{name}.{function.name}": lines_of_code(function)
        for name, tree in CODE.items()
        for function in functions(tree)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}


def test_no_function_of_the_library_takes_too_many_parameters():
    counts = {
        f"{name}.{function.name}": parameters(function)
        for name, tree in LIBRARY.items()
        for function in functions(tree)
        if function.name not in PUBLIC_LOSSES
    }
    assert not {name: count for name, count in counts.items() if count > MOST_PARAMETERS}


def test_every_package_and_module_stands_on_a_floor():
    names = {name.split(".")[1] for name in LIBRARY if "." in name}
    assert names == {name for layer in LAYERS["triplet_jax"] for name in layer}
