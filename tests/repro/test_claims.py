"""`repro claims`: from the metrics that git keeps, without records; in words and as JSON."""

import json
import shutil
from pathlib import Path

import pytest

from repblend.params.reading import read_yaml
from repblend.report.claims import read_entries
from repro import claims
from repro.claims import claims_of
from repro.pipeline import yaml_text
from repro.profiles import opened
from tests.report.synthetic import ROOT

METRICS = "profiles/openmoji/metrics/held-out"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with what git keeps of two workspaces."""
    root = tmp_path / "clone"
    for name in ("paper/published", "profiles/openmoji/metrics", "profiles/ufc-glyphs/metrics", "conf/profiles"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("paper/claims.yaml", *(f"profiles/{name}/{file}" for name in ("openmoji", "ufc-glyphs")
                                        for file in ("params.yaml", "dvc.lock"))):
        shutil.copyfile(ROOT / name, root / name)
    (root / "src" / "repblend").mkdir(parents=True)
    monkeypatch.setattr(claims, "find_root", lambda: root)
    return root


def found(clone: Path, name: str = "openmoji") -> dict[str, claims.Claim]:
    (profile,) = opened(clone, name)
    return {claim.entry.name: claim for claim in claims_of(profile)}


def test_committed_metrics_stand_in_for_records(clone: Path) -> None:
    trial = next(each for each in found(clone)["repblend-over-coresets"].trials if each.where == "200 pairs")
    first, second = (json.loads((clone / METRICS / f"{name}-200.json").read_text()) for name in ("repblend", "random"))
    assert trial.effect and trial.effect.estimate == pytest.approx(first["mean"] - second["mean"])
    assert trial.effect.between_students == pytest.approx((first["mean_std"]**2 + second["mean_std"]**2) ** 0.5)
    assert trial.files == ("metrics/held-out/repblend-200.json", "metrics/held-out/random-200.json")


def test_bytes_of_trajectories_are_those_of_the_lock(clone: Path) -> None:
    lock = read_yaml(clone / "profiles/openmoji/dvc.lock")
    params = read_yaml(clone / "profiles/openmoji/params.yaml")
    sizes = {out["path"]: out["size"] for stage in lock["stages"].values() for out in stage.get("outs", [])}
    claim = found(clone)["smaller-trajectories"]
    assert (claim.trials[0].first, claim.trials[0].second) == (
        sizes["encoder-experts"] // params["encoder_experts"]["num"], sizes["experts"] // params["experts"]["num"])
    assert claim.verdict == "holds" and claim.files == ("dvc.lock",)


def test_a_damaged_metrics_file_names_the_file_and_the_remedy(clone: Path) -> None:
    path = clone / METRICS / "lors-100.json"
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(ValueError, match=r"(?s)lors-100\.json: expected MD5.*Bring the files back \(git checkout"):
        found(clone)


def test_without_a_lock_a_metrics_file_is_read_as_its_type(clone: Path) -> None:
    (clone / "profiles/openmoji/dvc.lock").unlink()
    assert found(clone)["smaller-trajectories"].verdict == "not run"
    path = clone / METRICS / "lors-100.json"
    for content, message in (('{"mean": "a"}', r"mean: Input should be"), ("{}", r"lacks mean\.")):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"(?s)lors-100\.json.*{message}.*git restore"):
            found(clone)


def test_metrics_that_the_lock_does_not_know_are_left_out(clone: Path) -> None:
    path = clone / "profiles/openmoji/dvc.lock"
    content, (first, second) = read_yaml(path), found(clone)["blending-helps"].trials[2].sets
    del content["stages"]["evaluate-seed@repblend-1-100"]
    path.write_text(yaml_text(content))
    assert found(clone)["blending-helps"].trials[2].sets == (first - 1, second - 1), "its pair has none left either"


def test_every_claim_is_printed_for_each_of_its_workspaces(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main(None, as_json=True) == 0
    printed = {each["profile"]: each["claims"] for each in json.loads(capsys.readouterr().out)}
    for entry in read_entries(ROOT):
        assert all(entry.name in {claim["name"] for claim in printed[profile]} for profile in entry.profiles)
    assert {claim["verdict"] for claim in printed["openmoji-fold-1"]} == {"not run"}
    assert not (clone / "profiles" / "openmoji-fold-1").exists()  # looking makes no workspace
    assert claims.main("ufc-glyphs", as_json=False) == 0
    said = capsys.readouterr().out
    assert said.startswith("ufc-glyphs: 7 claims: ") and "does not hold" in said
    assert "`repro pull metrics --profile ufc-glyphs` brings the records" in said and "Bonferroni" in said


def test_a_wrong_file_or_name_is_a_sentence(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert claims.main("nothing", as_json=False) == 1
    assert "repro claims: profile 'nothing': expected one of" in capsys.readouterr().err
    (clone / "paper" / "claims.yaml").write_text("- {name: a}\n")
    assert claims.main(None, as_json=False) == 1
    assert "claim 1 (a): claim: Field required" in capsys.readouterr().err
