"""The floors of the house: imports only go down, numerics are silent, the cache knows nothing of what is above it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("activation_cache", "sae_translate")

FLOORS = {
    1: (
        "activation_cache.errors",
        "activation_cache.hub",
        "activation_cache.cooccurrence",
        "activation_cache.layout",
        "activation_cache.places",
        "sae_translate.languages",
        "sae_translate.align.alignment",
        "sae_translate.align.statistics",
        "sae_translate.config",
    ),
    2: (
        "activation_cache.shards",
        "activation_cache.models",
        "activation_cache.saes",
        "activation_cache.foreign",
        "activation_cache.text",
        "activation_cache.transfers",
        "sae_translate.artifacts",
        "sae_translate.align",
    ),
    3: (
        "activation_cache.arrow",
        "activation_cache.engines",
        "activation_cache.estimate",
        "activation_cache.gather",
        "activation_cache.importing",
        "activation_cache.plan",
        "activation_cache.record",
        "activation_cache.repair",
        "activation_cache.examples",
        "sae_translate.label",
        "sae_translate.sae",
        "sae_translate.probe",
        "sae_translate.translate",
    ),
    4: ("sae_translate.report", "sae_translate.demo"),
    5: ("sae_translate.cli",),
}
ANY_FLOOR = ("activation_cache", "sae_translate")
"The packages themselves: they hold names, not code."
DISK = ("activation_cache.places", "activation_cache.layout", "activation_cache.shards", "sae_translate.artifacts")
SCREEN = ("sae_translate.cli", "sae_translate.report")
NUMERICS = (
    "sae_translate.align",
    "sae_translate.translate",
    "sae_translate.label",
    "sae_translate.languages",
    "activation_cache.cooccurrence",
    "activation_cache.examples",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def floor_of(module: str) -> int | None:
    """The floor of the longest listed room the module lies in."""
    found = [(len(room), floor) for floor, rooms in FLOORS.items() for room in rooms if within(module, (room,))]
    return max(found)[1] if found else None


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports, at its top or inside a function, but not for type checking alone."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                full if (full := f"{node.module}.{name.name}") in MODULES else node.module for name in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name for name in found if within(name, PACKAGES)}


def calls_of(path: Path) -> set[str]:
    """Names that a file calls, as written (`print`, `torch.save`)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_every_module_has_a_floor():
    without = [name for name in MODULES if name not in ANY_FLOOR and floor_of(name) is None]
    assert not without, f"not on any floor: {without}"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ANY_FLOOR])
def test_imports_only_go_down(name):
    floor = floor_of(name)
    up = {other for other in imports_of(MODULES[name]) if other not in ANY_FLOOR and floor_of(other) > floor}
    assert not up, f"{name} (floor {floor}) imports from above: {up}"


def test_the_cache_never_imports_what_is_built_on_it():
    guilty = [
        name
        for name, path in MODULES.items()
        if name.startswith("activation_cache") and any(other.startswith("sae_translate") for other in imports_of(path))
    ]
    assert not guilty


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, NUMERICS)])
def test_numerics_neither_write_nor_print_nor_log(name):
    calls = calls_of(MODULES[name])
    forbidden = {"print", "open", "torch.save", "torch.load", "np.save", "np.load", "logging.getLogger"}
    assert not calls & forbidden
    writing = {c for c in calls if c.endswith((".write_text", ".write_bytes", ".to_csv", ".to_parquet", ".mkdir"))}
    assert not writing


@pytest.mark.parametrize("name", [name for name in MODULES if not within(name, SCREEN)])
def test_only_the_command_line_and_the_report_speak(name):
    assert "print" not in calls_of(MODULES[name])


def test_nothing_anywhere_is_unpickled():
    for name, path in MODULES.items():
        calls = calls_of(path)
        assert not {c for c in calls if c in ("pickle.load", "pickle.loads", "torch.load", "joblib.load")}, name


def test_help_needs_no_torch():
    """What the command line imports before a command runs."""
    import subprocess
    import sys

    heavy = ("torch", "transformers", "sae_lens", "pandas", "plotly")
    code = f"import sae_translate.cli, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
