"""The page that says how the last run was isolated and what the last verification found."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from repblend.store import write_json
from repro.cluster.jobs import Hardware, Ran, State, Submission, job_folder, stamp
from repro.run_page import CONTAINER, PAGE, VERIFICATION, write_run_page

RUN = {"engine": "20.10.24", "image": {"name": "repblend:0123", "id": "sha256:ab<c", "digests": []}, "commit": "f00",
       "dirty": False, "started": "2026-01-01T00:00:00+00:00", "wall_seconds": 9.5, "containers": [
           {"command": "dvc repro", "exit_code": 0, "out_of_memory": False, "wall_seconds": 9.0, "isolation": {
               "user": "1000:1000", "network": "none", "read_only_root": True, "privileged": False,
               "capabilities_dropped": ["ALL"], "capabilities_added": [], "security_options": [],
               "memory_bytes": 1 << 30, "processes": 512, "writable": ["/tmp"], "gpus": False}}]}
VERIFIED = {"commit": "f00", "started": "2026-01-01T00:00:00+00:00", "outputs": 45, "stages": ["a", "b"],
            "container": RUN, "wall_seconds": 9.0,
            "different": {"sets/x": {"stage": "a", "expected": "1", "found": None}}}


class Cells(HTMLParser):
    """Collects the text of a page, tables as name -> value."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(page)
        self.text = " ".join(self.words)
        self.table = dict(zip(self.words, self.words[1:], strict=False))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


def page_of(root: Path) -> Cells:
    write_run_page(root)
    return Cells((root / PAGE).read_text(encoding="utf-8"))


def test_a_workspace_without_records_says_how_to_make_them(tmp_path: Path) -> None:
    text = page_of(tmp_path).text
    assert "repro run --engine docker" in text and "repro verify" in text


def run_of(stage: str, processor: str, commit: str) -> str:
    """A line of `runs.jsonl`."""
    return json.dumps({"stage": stage, "commit": commit, "dirty": commit == "f00", "image_digest": None,
                       "started": "2026-01-01T00:00:00+00:00", "wall_seconds": 10.4, "peak_memory_mib": 1.0,
                       "machine": {"processor": processor, "cores": 2, "system": "Linux"}, "python": "3.11.7"})


def test_processors_and_commits_of_the_results_are_named(tmp_path: Path) -> None:
    runs = [run_of("encode", "A", "f00"), run_of("experts", "A", "f00"), run_of("bounds", "B", "f01")]
    (tmp_path / "runs.jsonl").write_text("\n".join(runs))
    text = page_of(tmp_path).text
    assert "A f00, with changes 2 21" in text and "B f01 1 10" in text


def test_image_and_isolation_of_a_run_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / CONTAINER, RUN)
    table = page_of(tmp_path).table
    assert (table["image: id"], table["image: digests"]) == ("sha256:ab<c", "none")
    assert [table[f"isolation: {fact}"] for fact in ("network", "read only root", "capabilities dropped")] == [
        "none", "yes", "ALL"]


def test_the_verdict_names_what_differs_and_where_it_was_made(tmp_path: Path) -> None:
    write_json(tmp_path / VERIFICATION, VERIFIED)
    page = page_of(tmp_path)
    assert "45 outputs" in page.text and "1 not the same" in page.text
    assert page.table["sets/x"] == "stage a, expected 1, found none"
    assert "2 stages were made again" in page.text and "in a container" in page.text
    write_json(tmp_path / VERIFICATION, VERIFIED | {"container": None, "different": {}})
    page = page_of(tmp_path)
    assert "0 not the same" in page.text and "on the machine itself" in page.text


@pytest.mark.parametrize("path", [CONTAINER, VERIFICATION])
@pytest.mark.parametrize("content", [3, [], None, {}, {"containers": 3}, VERIFIED | {"different": []}])
def test_a_record_of_another_form_is_named(tmp_path: Path, path: Path, content: object) -> None:
    write_json(tmp_path / path, content)
    with pytest.raises(ValueError, match=f"{path}: .*(?s:.*)Delete the file"):
        write_run_page(tmp_path)


def test_texts_in_records_are_no_markup(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    container = RUN | {"engine": hostile, "image": {"name": hostile, "id": hostile, "digests": [hostile]}}
    write_json(tmp_path / CONTAINER, container)
    write_json(tmp_path / VERIFICATION, VERIFIED | {
        "commit": hostile, "stages": [hostile], "container": container,
        "different": {hostile: {"stage": hostile, "expected": hostile, "found": hostile}}})
    (tmp_path / "runs.jsonl").write_text(run_of("encode", hostile, hostile))
    text = page_of(tmp_path).text
    assert text.count(hostile) >= 14
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page


def test_every_job_is_listed_and_its_log_linked(tmp_path: Path) -> None:
    folder = job_folder(tmp_path, "distill@repblend-100")
    Submission(stage="distill@repblend-100", part=None, engine="slurm", id="7", attempt=2, submitted=stamp(),
               key="0" * 64, log="logs/jobs/distill@repblend-100/output.log").write(folder / "submitted.json")
    Ran(attempt=2, id="7", state=State.DONE, node="node<1>", pid=1, gpus="0", started=stamp(), ended=stamp(),
        hardware=Hardware(processor="a processor", gpu="NVIDIA H200")).write(folder / "ran.json")
    (folder / "output.log").touch()
    page = page_of(tmp_path)
    assert page.text.endswith("distill@repblend-100 done node<1> a processor, NVIDIA H200 0 s attempt 2")
    (link,) = re.findall(r'href="(\.\./[^"]+)"', (tmp_path / PAGE).read_text("utf-8"))
    assert ((tmp_path / PAGE).parent / unquote(link)).resolve() == folder / "output.log"
