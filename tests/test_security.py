"""Attacks through untrusted files: each promise of docs/security.md is tested with an attack."""

import gzip
import json
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from conftest import assert_mistake
from data_helpers import CAT, save_image, small_coco, small_voc, small_yolo, voc_xml, write
from safetensors.torch import save_file

from fcos.commands.prepare import prepare
from fcos.config.params import read
from fcos.errors import UserError
from fcos.progress import Progress, say
from fcos.running.study_progress import StudyProgress
from fcos.scoring import json_files
from fcos.tracking import ui
from fcos.training.resume import Scratch
from fcos.visible import markdown, visible

RAN = Path("ran")  # would be created by code in a file
CALL = "!!python/object/apply:os.mkdir [ran]"


class Payload:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self):
        return Path.touch, (RAN,)


@pytest.fixture(params=["zip file", "plain pickle"])
def poisoned(request, tmp_path):
    """Write a checkpoint with code, which torch runs if asked to."""
    path = tmp_path / "evil.pth"
    torch.save({"model": Payload()}, path, _use_new_zipfile_serialization=request.param == "zip file")
    torch.load(path, weights_only=False)
    RAN.unlink()
    return path


def test_code_in_a_checkpoint_never_runs(workspace, run, poisoned):
    prepare()
    save_image(Path("x.jpg"))
    for command in (["import-checkpoint", "--run", "one-epoch"], ["detect", "x.jpg", "--checkpoint"]):
        assert_mistake(run(*command, str(poisoned)), "evil.pth")
        assert not RAN.exists()


def test_code_in_the_state_of_a_training_never_runs(tmp_path, poisoned):
    scratch = Scratch(tmp_path / "run-key")
    scratch.folder.mkdir()
    poisoned.rename(scratch.path)
    assert scratch.load(torch.device("cpu")) is None
    assert not RAN.exists()


@pytest.mark.parametrize("file", ["params.yaml", "studies/evil.yaml", "yolo/data.yaml"])
def test_code_in_yaml_never_runs(workspace, run, file):
    write(Path(file), f"study: {CALL}\nnames: {CALL}\n")
    write(Path("yolo/images/a.txt"), "0 0.5 0.5 0.1 0.1\n")
    command = {"params.yaml": ["prepare"], "studies/evil.yaml": ["study", "use", "evil"]}
    assert run(*command.get(file, ["study", "new", "mine", "--from", "yolo"])).returncode == 2
    assert not RAN.exists()


@pytest.mark.parametrize("file", ["params.yaml", "yolo/data.yaml"])
def test_aliases_of_yaml_are_not_written_out_without_end(workspace, run, file):
    """Nested aliases, ten of ten of ten: showing or traversing the value never ends."""
    small_yolo(a=["0 0.5 0.5 0.1 0.1"])
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    write(Path(file), "\n".join([*lines, "names: *a8", "study: *a8"]))
    command = ["status", "--quick"] if file == "params.yaml" else ["study", "new", "mine", "--from", "yolo"]
    assert_mistake(run(*command), file, "aliases expand to more than 1,000,000 values")


LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
ENTITIES = {
    "billion laughs": f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]>',
    "a file of this machine": '<!DOCTYPE x [<!ENTITY a11 SYSTEM "file:///etc/hostname">]>',
    "a web page": '<!DOCTYPE x [<!ENTITY a11 SYSTEM "http://127.0.0.1:9/x">]>',
}


@pytest.mark.parametrize("entity", ENTITIES.values(), ids=ENTITIES)
def test_entities_of_an_annotation_are_not_followed(workspace, run, entity):
    small_voc()
    write(Path("photos/Annotations/000001.xml"), entity + voc_xml([CAT.replace("cat", "&a11;")]))
    assert_mistake(run("study", "new", "mine", "--from", "photos"), "000001.xml")


def test_a_file_that_says_it_is_larger_than_it_is(workspace, run):
    """The first eight bytes of safetensors give the length of its header; PNG gives the number of pixels."""
    path = Path("evil.safetensors")
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    save_image(Path("x.jpg"))
    assert_mistake(run("detect", "x.jpg", "--checkpoint", str(path)), "evil.safetensors")
    small_coco()
    header = struct.pack(">II", 100_000, 100_000) + b"\x08\x02\0\0\0"
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    image = next(Path("coco").rglob("*.jpg"))
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert_mistake(run("study", "new", "mine", "--from", "coco"), image.name)


@pytest.mark.parametrize("kind", ["compressed", "expanded"])
def test_a_small_checkpoint_never_becomes_a_large_one(workspace, run, kind):
    """torch.load unpacks compressed members, and a tensor may repeat one number without end."""
    prepare()
    if kind == "expanded":
        torch.save({"a": torch.zeros(1).expand(2**60)}, "evil.pth")
    else:
        torch.save({"a": torch.zeros(2_500_000)}, "plain.pth")
        with zipfile.ZipFile("plain.pth") as plain, zipfile.ZipFile("evil.pth", "w", zipfile.ZIP_DEFLATED) as evil:
            for name in plain.namelist():
                evil.writestr(name, plain.read(name))
    problem = "is not a state dict" if kind == "expanded" else "would unpack to more than 10 times its size"
    assert_mistake(run("import-checkpoint", "evil.pth", "--run", "one-epoch"), f"evil.pth: {problem}")


def test_the_ui_listens_on_this_machine_only(monkeypatch):
    started = []
    monkeypatch.setattr(ui.os, "execv", lambda _, words: started.append(" ".join(words)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/mlflow")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "")
    ui.serve(5000)
    assert "mlflow server --host 127.0.0.1 --port 5000 " in started[0]
    assert "secret" not in started[0] and "secret" in os.environ["MLFLOW_BACKEND_STORE_URI"]


def test_the_addresses_of_the_ui_hold_no_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host:5000/")
    monkeypatch.setattr(ui, "connect", lambda: None)
    monkeypatch.setattr(ui, "find_experiment", lambda *_: "7")
    table, charts = (line.partition(": ")[2].strip() for line in ui.pages_of("mine", 5000).splitlines())
    assert table == "https://host:5000/#/experiments/7/runs?viewStateShareKey=study"
    assert charts == f"{table}&compareRunsMode=CHART"


def test_a_small_gz_file_never_fills_the_memory(monkeypatch):
    monkeypatch.setattr(json_files, "ALWAYS_UNPACKED", 1000)
    Path("evil.json.gz").write_bytes(gzip.compress(b"[" + b" " * 10**6) + gzip.compress(b"]"))
    with pytest.raises(UserError, match=r"evil.json.gz: would unpack to more than 100 times its size"):
        json_files.read_json_file(Path("evil.json.gz"))
    Path("parts.json.gz").write_bytes(gzip.compress(b"[1,") + gzip.compress(b"2]") + bytes(512))
    assert json_files.read_json_file(Path("parts.json.gz")) == [1, 2]


NAMED = [{"id": 1, "name": "cat"}]
HEADERS = {
    "no run": ({"run": None}, "its header is missing or incomplete"),
    "a class that is a number": ({"categories": [5]}, "its header is missing or incomplete"),
    "a class without a name": ({"categories": [{"id": 1}]}, "its header is missing or incomplete"),
    "bits": ({"bits": "x"}, "its header is missing or incomplete"),
    "an unknown network": ({"backbone": "../x"}, "describes a network that this version does not support"),
    "no size": ({"train": {"sizes": []}}, "describes a network that this version does not support"),
    "ten million convolutions": ({"num_convs": 10**7}, "a larger network than the file contains"),
    "a million channels": ({"model": {"fpn_channels": 2**20}}, "a larger network than the file contains"),
}


@pytest.mark.parametrize(("change", "problem"), HEADERS.values(), ids=HEADERS)
def test_weights_that_say_odd_things_of_themselves(workspace, run, change, problem):
    """The header is checked before its network is created, which may need more memory than there is."""
    settings = read().runs["one-epoch"].identity()
    header = {"run": settings, "categories": NAMED, "data_digest": "d"}
    for key, value in change.items():
        if key in header or key == "bits":
            header[key] = value
        else:
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    save_file({"a": torch.zeros(1)}, "evil.safetensors", metadata={"fcos": json.dumps(header)})
    save_image(Path("x.jpg"))
    assert_mistake(run("detect", "x.jpg", "--checkpoint", "evil.safetensors"), "evil.safetensors", problem)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", "-x", "a\nb"])
def test_names_are_no_paths(workspace, run, name):
    small_voc()
    before = sorted(Path().rglob("*"))
    for command in (
        ["study", "use", "--", name],
        ["study", "new", "--from", "photos", "--", name],
        ["train", "--", name],
    ):
        assert run(*command).returncode == 2
    assert sorted(Path().rglob("*")) == before


def test_a_terminal_is_not_written_to_by_names(workspace, run):
    """Escape sequences change a terminal's title, colours and sometimes its input; U+202E reverses what follows."""
    small_yolo(**{"x\x1b]0;evil\x07\u202egpj": ["0 0.5"]})
    write(Path("yolo/classes.txt"), "cat\n")
    said = run("study", "new", "mine", "--from", "yolo")
    assert_mistake(said, "x\\x1b]0;evil\\x07\\u202egpj")
    assert not {"\x1b", "\x07", "\u202e"} & set(said.stdout + said.stderr)


STEERS = "\x1b[31m\x07\x9b\u202e\u2066\u200f\u2028"
SHOWN = r"\x1b[31m\x07\x9b\u202e\u2066\u200f\u2028"


def test_lines_of_progress_do_not_steer_the_terminal(capsys, monkeypatch):
    def tell():
        say(f"warning: {STEERS}")
        StudyProgress.print(None, f"source: {STEERS}")
        progress = Progress(f"of {STEERS}\nforged", 2, unit="images")
        progress.update(2, f"note {STEERS}")
        progress.close()
        out, err = capsys.readouterr()
        assert out == f"source: {SHOWN}\n" and f"warning: {SHOWN}\n" in err
        return err

    assert f"of {SHOWN}\\nforged: 2/2 images, 0 s, note {SHOWN}\n" in tell()
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = tell()
    assert f"of {SHOWN}\\nforged: 100%" in bar and f"note {SHOWN}]" in bar
    assert not set(STEERS) - set("[31m") & set(re.sub(r"\x1b\[A", "", bar))


def test_a_name_forges_no_line_of_a_message(workspace, run):
    name = "gt\n  hint:     rm -r ~\n.json"
    write(Path(name), "[")
    said = run("score", "--gt", name, "--detections", name)
    assert_mistake(said, "gt\\n  hint:     rm -r ~\\n.json")
    assert not any(line.startswith("  hint:     rm") for line in said.stderr.splitlines())
    error = UserError(
        "a\n  hint:     rm", "b\n  hint:     rm -r ~", found="x\n  hint:     rm -r ~", expected="y", hint="z"
    )
    indented = 12 * " " + "  hint:     rm -r ~"
    assert str(error).splitlines() == [
        "a\\n  hint:     rm: b", "      hint:     rm -r ~", "  found:    x", indented, "  expected: y", "  hint:     z"
    ]  # fmt: skip


def test_what_is_shown_keeps_people_s_letters():
    for name in ("круг", "猫", "می\u200cخو", "שלום", "a\u00a0b", "\U0001f469\u200d\U0001f692", "naïve"):
        assert visible(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a|b", r"a\|b"),
        ("`rm -rf`", r"\`rm -rf\`"),
        ("a\n\n# b", "a # b"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("<b onclick=x>", "&lt;b onclick=x&gt;"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("-1.5", "-1.5"),
        (STEERS, r"\\x1b\[31m\\x07\\x9b\\u202e\\u2066\\u200f"),
    ],
)
def test_names_in_markdown_are_text(name, shown):
    assert markdown(name) == shown
