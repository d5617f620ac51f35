"""Files of another format are refused with the version that wrote them; files without a number have format 1."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from fcos.detections import Candidates
from fcos.errors import UserError
from fcos.evaluation.candidates import read_candidates, save_candidates
from fcos.formats import FORMAT, read_record, write_record
from fcos.model.checkpoint import read_identity
from fcos.scoring.bootstrap import Drawn, Support
from fcos.scoring.replicates import read_replicates, save_replicates


def test_a_record_says_its_format_and_is_read_with_or_without_it(tmp_path):
    path = tmp_path / "evaluation.json"
    write_record(path, {"metrics": {"AP": 0.5}})
    assert json.loads(path.read_text()) == {"format": 1, "metrics": {"AP": 0.5}}
    assert read_record(path, hint="")["metrics"] == {"AP": 0.5}
    path.write_text('{"metrics": {"AP": 0.25}}')
    assert read_record(path, hint="")["metrics"] == {"AP": 0.25}


def test_a_record_of_another_version_is_refused_with_its_version(tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({"format": 2, "provenance": {"versions": {"fcos": "9.1"}}}))
    with pytest.raises(UserError) as refused:
        read_record(path, hint="fcos evaluate r18")
    assert refused.value.found == "format 2, written by fcos 9.1"
    assert "use the version that wrote it, or create it again: fcos evaluate r18" in str(refused.value)


@pytest.mark.parametrize("content", [{"format": 2}, {"format": None}, {"format": "1"}, {"format": 2, "provenance": 3}])
def test_odd_formats_are_refused_too(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"expected: format {FORMAT}, which fcos"):
        read_record(path, hint="fcos prepare")


READERS = {
    "weights": lambda path: read_identity(path, hint="fcos train r18"),
    "candidates": lambda path: read_candidates(path, hint="fcos predict r18"),
    "replicates": lambda path: read_replicates(path, hint="fcos evaluate r18"),
}


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize("header", ['{"format": 2}', "[1]", "no JSON"])
def test_headers_of_tensors_are_checked(tmp_path, what, header):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1)}, path, metadata={"fcos": header})
    with pytest.raises(UserError, match="has a format that" if "format" in header else "is not"):
        READERS[what](path)


def test_a_header_comes_back_as_it_was_given(tmp_path):
    header = {"run": {"name": "r18"}, "view": {"size": 64}}
    save_replicates(
        tmp_path / "replicates", {"test": Drawn(np.zeros((2, 12)), Support.of_images(np.full(12, 50)))}, header
    )
    assert read_replicates(tmp_path / "replicates", hint="").header == header
    none = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    save_candidates(tmp_path / "candidates", {7: none}, header)
    assert read_candidates(tmp_path / "candidates", hint="").header == header
