"""Find the files that each stage's command imports; `make deps` writes them to dvc.yaml files and training/key.py."""

import ast
import re
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("source", "prepare", "train", "predict", "evaluate", "tta", "nms_sweep", "results")


def dvc_file(name):
    return ROOT / ("dvc.yaml" if name == "report" else f"stages/{name}/dvc.yaml")


def closure(graph, name):
    """Return the files of all modules that the command of a stage imports, except those with only a docstring."""
    return closure_of(graph, f"fcos.commands.{name}") | (selection(graph) if name == "source" else set())


def selection(graph):
    """Return the code that `train.validate_every` runs besides training; source records its changes for DVC."""
    return closure_of(graph, "fcos.study.validator") - closure_of(graph, "fcos.commands.train")


def closure_of(graph, module):
    modules = {module, *graph.find_upstream_modules(module)}
    modules |= {m.rsplit(".", depth)[0] for m in modules for depth in range(1, m.count(".") + 1)}
    paths = {Path(m.replace(".", "/")) for m in modules}
    files = {str(p / "__init__.py") if (ROOT / p).is_dir() else f"{p}.py" for p in paths}
    return {file for file in files if not _is_docstring(ROOT / file)}


def _is_docstring(path):
    """Return whether the file has only a docstring; as a dependency it would only slow DVC down."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in statements)


def write(graph, name):
    """Write the closure into the file in place of its modules of `fcos`."""
    path = dvc_file(name)
    lines = path.read_text().splitlines(keepends=True)
    listed = [number for number, line in enumerate(lines) if re.match(r"\s+- fcos/.*\.py$", line)]
    indent = lines[listed[0]].partition("-")[0]
    lines[listed[0] : listed[-1] + 1] = [f"{indent}- {file}\n" for file in sorted(closure(graph, name))]
    path.write_text("".join(lines))


def write_key(path, files):
    """Write `files` into the module at `path` in place of its list of the code that is part of a key."""
    listed = "".join(f'    "{file.removeprefix("fcos/")}",\n' for file in sorted(files))
    text = re.sub(r"(?s)(_CODE = \(\n).*?(\)\n)", lambda match: match[1] + listed + match[2], path.read_text())
    path.write_text(text)


if __name__ == "__main__":
    built = grimp.build_graph("fcos", cache_dir=None)
    for stage in (*STAGES, "report"):
        write(built, stage)
    write_key(ROOT / "fcos/training/key.py", closure(built, "train"))
    write_key(ROOT / "fcos/study/selection.py", selection(built))
