"""The definition of the pipeline: code dependencies, addresses, ignored files."""

import re
import tomllib

import grimp
import pytest
import yaml
from conftest import ROOT
from stage_deps import STAGES, closure, dvc_file

from fcos.study.places import SLOTS
from fcos.study.run_files import STAGES_OF_A_RUN, written_by


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("fcos", cache_dir=None)


def stage(name):
    definition = yaml.safe_load(dvc_file(name).read_text())["stages"][name]
    return definition.get("do", definition)


@pytest.mark.parametrize("name", [*STAGES, "report"])
def test_code_deps_are_the_import_closure(graph, name):
    """A missing file hides a change; an unnecessary one retrains everything for a figure's colour. See `make deps`."""
    listed = {dep for dep in stage(name)["deps"] if dep.startswith("fcos/") and dep.endswith(".py")}
    assert listed == closure(graph, name)


@pytest.mark.parametrize("name", [*STAGES, "report"])
def test_a_stage_calls_the_command_of_its_name(name):
    command = stage(name)["cmd"]
    last = command if isinstance(command, str) else command[-1]
    assert re.match(rf"python -m fcos {name.replace('_', '-')}( |$)", last)


def outputs_of(name):
    definition = stage(name)
    listed = [*definition["outs"], *definition.get("metrics", []), *definition.get("plots", [])]
    return [(next(iter(out)) if isinstance(out, dict) else out).replace("${item}", "${key}") for out in listed]


@pytest.mark.parametrize("name", STAGES_OF_A_RUN)
def test_the_table_of_files_is_what_a_stage_writes(name):
    folder = "runs/${study}/${key}"
    assert sorted(outputs_of(name)) == sorted(f"{folder}/{file.name}" for file in written_by(name))
    typed = re.escape(f"fcos {name.replace('_', '-')} {{run}}")
    assert all(re.search(rf"{typed}( |,|$)", file.command) for file in written_by(name))


def test_no_stage_writes_into_anothers_output():
    """An entry of `results` never has the name of a run, so that its whole folder is an output."""
    others = [output for name in STAGES if name != "results" for output in outputs_of(name)]
    normal = [*others, *(output.replace("${key}", "${entry}") for output in outputs_of("results"))]
    assert len(set(normal)) == len(normal)
    assert not [(a, b) for a in normal for b in normal if a != b and b.startswith(a + "/")]


def test_figures_and_scoring_are_no_reason_to_train(graph):
    assert not [path for path in closure(graph, "train") if "reporting" in path or "evaluation" in path]
    assert not [path for path in closure(graph, "predict") if "scoring" in path or "losses" in path]
    assert not [path for name in STAGES for path in closure(graph, name) if "tracking" in path or "cli" in path]


def test_a_project_of_its_own_has_every_stage():
    template = ROOT / "fcos" / "authoring" / "template" / "stages"
    assert {path.stem for path in template.iterdir()} == {path.parent.name for path in ROOT.glob("stages/*/dvc.yaml")}


def test_templates_of_the_report_are_its_deps():
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "fcos").rglob("*.j2")}
    others = {"fcos/reporting/comparison.html.j2", "fcos/reporting/labels.html.j2"}  # of compare and labels
    assert others < templates and templates - others <= set(stage("report")["deps"])


def test_compiled_code_and_scratch_are_ignored_by_dvc():
    ignored = (ROOT / ".dvcignore").read_text().split()
    assert {"__pycache__/", ".scratch/"} <= set(ignored)


def test_every_link_of_the_source_is_seen_by_dvc():
    """Each link is an output of source, which DVC neither caches nor deletes, and a dependency of its readers."""
    links = {f"data/.source/${{study}}/{slot}" for slot in (*SLOTS, "checkpoints", "results", "selection")}
    outputs = {path: how for out in stage("source")["outs"] for path, how in out.items()}
    assert outputs.keys() == links
    assert all(how == {"cache": False, "persist": True} for how in outputs.values())
    read = {dep.removesuffix("/${key}") for name in ("prepare", "train", "results") for dep in stage(name)["deps"]}
    assert links <= read


def test_the_rooms_of_the_architecture_page_are_those_of_the_import_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text().partition("## Layers")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in page.splitlines() if row.startswith("| `")]
    assert rows == [layer.split(" | ") for layer in layers]
    assert not any("ignore_imports" in contract for contract in contracts)
