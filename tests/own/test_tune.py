"""`repro tune`: the same proposals whatever stopped the search, values written where they belong, real trials."""

import difflib
import json
import math
import os
import re
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from repblend.grid import Cell
from repblend.params import Params, read_params
from repblend.params.reading import read_yaml
from repblend.runtime.context import Paths
from repblend.stages import distill, encode, experts, prepare
from repblend.stages.pipeline import Context
from repblend.store import read_json
from repblend.tuning import LEAST_ITERATIONS, VALIDATIONS, Cost, Point, Trials, plot
from repro import equal_searches, tune
from repro.chosen import write_values
from repro.equal_searches import methods_of, num_finished, take_turns
from repro.pipeline import KINDS, MULTIMODAL
from repro.profiles import Profile
from repro.tune import (
    Length,
    Limit,
    Outcome,
    Range,
    finished,
    open_study,
    rate,
    read_included,
    search,
    seed_of,
    space_of,
    table,
)
from tests.own import pictures

ROOT = Path(__file__).parents[2]
SPACE = [Range("max_start", 1, 4, 2, whole=True), Range("expert_span", 1, 6, 3, whole=True, last_with="max_start"),
         rate("initial_lr_img", 0.05)]
FOREVER = Limit(1e9, None)


def pretended(values: Mapping[str, Any]) -> Outcome:
    """Best at a rate of 0.02 and long segments; rates above 0.2 diverge. A trial takes 30 seconds."""
    if values["initial_lr_img"] > 0.2:
        return Outcome(None, 30.0, "diverged")
    return Outcome(20 + values["expert_span"] - abs(math.log(values["initial_lr_img"] / 0.02)), 30.0)


def run(file: Path, trials: int, seed: int = 0, evaluate: Any = pretended) -> list[tuple[dict[str, Any], float]]:
    study = open_study(file, "test/repblend-50", {"of": "a test"})
    search(study, SPACE, seed, FOREVER._replace(trials=trials), evaluate, tell=lambda line: None)
    return [(trial.user_attrs["values"], trial.value or 0.0) for trial in finished(study)]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], float]]:
    return run(tmp_path_factory.mktemp("tune") / "study.jsonl", 12)


def test_trials_begin_at_the_present_settings_and_stay_in_their_ranges(twelve: list) -> None:
    assert twelve[0][0] == {"max_start": 2, "expert_span": 3, "initial_lr_img": 0.05}
    for values, _ in twelve:
        assert 1 <= values["max_start"] <= 4 and values["max_start"] - 1 + values["expert_span"] <= 6
        assert 0.01 <= values["initial_lr_img"] <= 0.25
        assert f"{values['initial_lr_img']:.3g}" == f"{values['initial_lr_img']:g}"
    assert len({json.dumps(values) for values, _ in twelve}) > 8


@pytest.mark.parametrize("killed_in", [0, 1, 6])
def test_a_search_that_was_killed_goes_on_to_the_same_trials(killed_in: int, twelve: list, tmp_path: Path) -> None:
    file, calls = tmp_path / "study.jsonl", []

    def dies(values: Mapping[str, Any]) -> Outcome:
        calls.append(values)
        if len(calls) > killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
        return pretended(values)

    if (child := os.fork()) == 0:
        try:
            run(file, 12, evaluate=dies)
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with file.open("ab") as cut_off:
        cut_off.write(b'{"op_code":4,"worker')
    assert run(file, 12) == twelve


def test_a_study_goes_on_where_its_limit_was_and_another_seed_proposes_other_trials(twelve: list,
                                                                                    tmp_path: Path) -> None:
    assert run(tmp_path / "a.jsonl", 5) == twelve[:5] and run(tmp_path / "a.jsonl", 12) == twelve
    assert run(tmp_path / "b.jsonl", 3, seed=1)[1:] != twelve[1:3]
    assert seed_of(0, "a/b", 1) != seed_of(0, "a/b", 2)


def test_trials_that_are_asked_for_come_first_and_once_whatever_stopped_the_search(tmp_path: Path) -> None:
    file, calls = tmp_path / "study.jsonl", list[Mapping[str, Any]]()
    included = [read_included("initial_lr_img=0.03", SPACE), read_included("max_start=3 expert_span=4", SPACE)]

    def stops(values: Mapping[str, Any]) -> Outcome:
        calls.append(values)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pretended(values)

    with pytest.raises(KeyboardInterrupt):
        search(open_study(file, "x", {}), SPACE, 0, FOREVER, stops, lambda line: None, included)
    for trials in (2, 5):
        search(open_study(file, "x", {}), SPACE, 0, FOREVER._replace(trials=trials), stops, lambda line: None, included)
    tried = [trial.user_attrs["values"] for trial in finished(open_study(file, "x", {}))]
    first, wanted, other = tried[:3]
    assert first == {"max_start": 2, "expert_span": 3, "initial_lr_img": 0.05}
    assert sorted([wanted, other], key=str) == [{"max_start": 2, "expert_span": 3, "initial_lr_img": 0.03},
                                                {"max_start": 3, "expert_span": 4, "initial_lr_img": 0.05}]
    assert len(tried) == 5 and all(each not in tried[:3] for each in tried[3:])


@pytest.mark.parametrize(("words", "said"), [
    ("lr=1", "expected KEY=VALUE with one of max_start, expert_span, initial_lr_img"),
    ("max_start=1.5", "expected a whole number"), ("initial_lr_img=", "expected a number"),
    ("initial_lr_img=1", "initial_lr_img is 1 then; this search looks from 0.025 to 0.1"),
    ("initial_lr_img=nan", "initial_lr_img is nan then"),
    ("max_start=4 expert_span=4", "expert_span is 4 then; this search looks from 1 to 3")])
def test_a_trial_outside_of_the_search_is_refused(words: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_included(words, SPACE)


def test_minutes_are_those_of_all_trials_and_no_trial_begins_that_would_exceed_them(tmp_path: Path) -> None:
    for minutes, expected in ((0, 1), (1.4, 2), (1.4, 2), (2.0, 4)):
        study = open_study(tmp_path / "study.jsonl", "x", {})
        search(study, SPACE, 0, Limit(minutes, None), pretended, tell=lambda line: None)
        assert len(finished(study)) == expected


def test_a_trial_that_diverges_is_the_worst_and_said(tmp_path: Path) -> None:
    study, lines = open_study(tmp_path / "study.jsonl", "x", {}), list[str]()
    search(study, SPACE, 0, Limit(1e9, 1), lambda values: Outcome(None, 2.0, "not finite"), tell=lines.append)
    assert finished(study)[0].value == 0 and lines == [
        "trial 0: diverged in 2 s, max_start 2, expert_span 3, initial_lr_img 0.05"]
    assert "diverged" in table(finished(study))


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path / "study.jsonl", "x", {"seed": 0})
    with pytest.raises(ValueError, match="is a study of other parameters or data"):
        open_study(tmp_path / "study.jsonl", "x", {"seed": 1})


# Spaces and what is written.


@pytest.fixture
def content() -> dict[str, Any]:
    return read_yaml(ROOT / "params.yaml")


@pytest.mark.parametrize("method", ["repblend", "repblend-without-blending", "lors", "mtt-vl", "tesla-vl"])
def test_every_method_has_a_space_around_its_present_settings(method: str, content: dict[str, Any]) -> None:
    content["distill"]["cells"] |= {f"{method}-20": {}}
    params = Params.model_validate(content)
    space = {each.key: each for each in space_of(Cell(method, 20), params, 10)}
    assert ("optimiser.lr.similarity" in space) == (method not in ("mtt-vl", "tesla-vl"))
    assert space["batch_size"].high == (20 if method in ("mtt-vl", "tesla-vl") else 19)
    assert all(each.low <= each.now <= each.high for each in space.values())
    of_encoder = Cell(method, 20).trains_encoder
    down = 25 if of_encoder else 2
    assert space["optimiser.lr.images"].now / space["optimiser.lr.images"].low == pytest.approx(down)
    assert (space["segments"].low, space["segments"].high) == ((1, 8) if of_encoder else (1, 4))
    assert (space["max_start"].low, space["max_start"].high) == (1, 6)
    assert (space["expert_span"].low, space["expert_span"].high, space["expert_span"].last_with) == (2, 10, "max_start")


def test_coresets_have_the_rates_of_their_students(content: dict[str, Any]) -> None:
    params = Params.model_validate(content)
    assert [(each.key, each.now) for each in space_of(Cell("k-center", 50), params, 1)] == [("lr_img", 0.1),
                                                                                            ("lr_txt", 0.1)]
    assert [each.now for each in space_of(Cell("random+encoder-students", 50), params, 1)] == [0.01, 0.3]
    with pytest.raises(ValueError, match=r"--method rndom: select\.lr_img has no rndom"):
        space_of(Cell("rndom", 50), params, 1)


def changed_lines(file: Path, before: str) -> list[str]:
    return [line for line in difflib.ndiff(before.splitlines(), file.read_text().splitlines()) if line[0] in "+-"]


def test_values_are_written_with_their_study_and_nothing_else_changes(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    file.write_text(before)
    values = {"max_start": 1, "initial_lr_img": 0.021, "optimiser.lr.images": 0.3}
    write_values(file, Cell("repblend", 50), values, "paper/studies/repblend-50.jsonl, trial 7")
    assert [re.sub(" +", " ", line) for line in changed_lines(file, before)] == [
        "- repblend: {}", "+ repblend:",
        "+ max_start: 1 # paper/studies/repblend-50.jsonl, trial 7",
        "+ initial_lr_img: 0.021 # paper/studies/repblend-50.jsonl, trial 7",
        "+ optimiser:", "+ lr:", "+ images: 0.3 # paper/studies/repblend-50.jsonl, trial 7"]
    settings = read_params(file).distill.settings("repblend-50")
    assert (settings.max_start, settings.initial_lr_img, settings.optimiser.lr.images) == (1, 0.021, 0.3)
    assert settings.optimiser.lr.texts == 0.02 and read_params(file).distill.settings("repblend-100").max_start == 1
    again = file.read_text()
    write_values(file, Cell("repblend", 50), {"max_start": 2}, "another, trial 1")
    assert [re.sub(" +", " ", line) for line in changed_lines(file, again)] == [
        "- max_start: 1 # paper/studies/repblend-50.jsonl, trial 7", "+ max_start: 2 # another, trial 1"]


@pytest.mark.parametrize("method", ["mtt-vl", "lors"])
def test_methods_that_share_settings_by_an_alias_part_ways(method: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", file)
    before = read_yaml(file)["distill"]["methods"]
    write_values(file, Cell(method, 50), {"batch_size": 20, "optimiser.lr.texts": 0.5}, "a study")
    after = read_yaml(file)["distill"]["methods"]
    expected = before[method] | {"batch_size": 20, "optimiser": before[method]["optimiser"] | {
        "lr": before[method]["optimiser"]["lr"] | {"texts": 0.5}}}
    assert after == before | {method: expected}


def test_rates_of_coresets_and_settings_of_single_cells_are_written_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text().replace("repblend-50: {}", "repblend-50: {max_start: 2}")
    file.write_text(text)
    write_values(file, Cell("random", 50), {"lr_img": 0.02, "lr_txt": 0.05}, "one, trial 1")
    write_values(file, Cell("herding", 50), {"lr_img": 0.07, "lr_txt": 0.05}, "two, trial 2")
    write_values(file, Cell("random+encoder-students", 50), {"lr_img": 0.5, "lr_txt": 0.6}, "three, trial 3")
    write_values(file, Cell("repblend", 50), {"max_start": 4}, "four, trial 4")
    params = read_params(file)
    assert params.select.lr_img == {"random": 0.02, "herding": 0.07, "k-center": 0.1, "forgetting": 0.1}
    assert (params.evaluate.encoder_coresets.lr_img, params.evaluate.encoder_coresets.lr_txt) == (0.5, 0.6)
    assert [params.distill.settings(f"repblend-{budget}").max_start for budget in (50, 100)] == [4, 3]
    assert re.search(r"lr_img: \{random: 0\.02.*\} +# random: one, trial 1; herding: two, trial 2\n", file.read_text())
    assert "# Rates of students that train the whole image encoder on a coreset" in file.read_text()


def test_comments_above_other_values_stay(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("distill:\n  methods:\n    repblend:\n      max_start: 3\n      # why so many\n      segments: 2\n"
                    "  # of single sets\n  cells: {}\n")
    for trial in (1, 2):
        write_values(file, Cell("repblend", 9), {"max_start": trial}, f"a study, trial {trial}")
        assert re.sub(" +#", " #", file.read_text()).replace("\n #", "\n#") == re.sub("\n +#", "\n#", (
            f"distill:\n  methods:\n    repblend:\n      max_start: {trial} # a study, trial {trial}\n"
            "      # why so many\n      segments: 2\n  # of single sets\n  cells: {}\n"))


def test_the_plot_has_plain_numbers_at_its_axes_and_the_same_bytes_again(tmp_path: Path) -> None:
    points = [Point(number, 20.0 + number, {"segments": 1 + number % 3, "lr_img": 0.003 * 3 ** number})
              for number in range(5)]
    for name in ("one", "two"):
        plot(tmp_path, name, points)
    drawn = (tmp_path / "one.svg").read_text()
    assert "mathdefault" not in drawn and "<!-- 0.02 -->" in drawn and "<!-- lr_img -->" in drawn
    assert "<!-- 1.5 -->" not in drawn and drawn == (tmp_path / "two.svg").read_text()


# Equal searches.


def test_methods_take_turns_and_those_that_are_behind_come_first() -> None:
    numbers, order = {"a": 2, "b": 0, "c": 1}, list[str]()

    def run(method: str, wanted: int) -> int:
        assert wanted > numbers[method] and min(numbers.values()) >= wanted - 1
        numbers[method] = wanted
        order.append(method)
        return 0

    assert take_turns(numbers, 3, run) == 0
    assert "".join(order) == "bbcabc" and set(numbers.values()) == {3}
    assert take_turns(numbers, 3, run) == 0 and len(order) == 6


def test_the_first_method_that_fails_ends_the_searches() -> None:
    asked: list[str] = []
    assert take_turns({"a": 0, "b": 0}, 2, lambda method, wanted: asked.append(method) or 3) == 3 and asked == ["a"]


def test_all_methods_are_those_of_the_grid() -> None:
    params = read_params(ROOT / "profiles/openmoji/params.yaml")
    assert set(methods_of(params)) >= {"repblend", "repblend-without-blending", "lors", "tesla-vl", "mtt-vl", "random",
                                       "random+encoder-students"}
    for method in methods_of(params):
        assert space_of(Cell(method, 100), params, 9)


def test_finished_trials_are_counted_without_those_that_a_kill_left(tmp_path: Path) -> None:
    file = tmp_path / "study.jsonl"
    assert num_finished(file, "test/repblend-50") == 0
    run(file, 3)
    open_study(file, "test/repblend-50", {"of": "a test"}).ask()
    assert num_finished(file, "test/repblend-50") == 3


def test_trials_of_another_length_are_another_study() -> None:
    cell = Cell("lors", 100)
    assert Length().study_of(cell) == Length(30).study_of(cell) == "lors-100"
    assert Length(None, 240).study_of(cell) == "lors-100-240s" != Length(None, 1800).study_of(cell)


def test_two_lengths_of_a_trial_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert equal_searches.main("quickstart", ["repblend"], 50, None, None, 20, 60, write=False) == 1
    assert "--iterations and --processor-seconds" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "expected", "validations"), [
    (100, 38, VALIDATIONS), (100.9, 38, VALIDATIONS), (48, 13, 5), (19, LEAST_ITERATIONS, 1), (0, LEAST_ITERATIONS, 1)])
def test_iterations_fill_what_is_left_beside_the_validations(seconds: float, expected: int, validations: int) -> None:
    cost = Cost(spent=10, iteration=2, validation=2)
    assert cost.affordable(seconds) == (expected, validations)
    if expected > LEAST_ITERATIONS:
        taken = cost.spent + cost.iteration * expected + cost.validation * (1 + validations)
        assert taken <= seconds < taken + cost.iteration


def test_dear_validations_are_few() -> None:
    """As of students that train an encoder: six of them would leave no iteration."""
    cost = Cost(spent=50, iteration=5, validation=25)
    assert cost.affordable(300) == (35, 2) and cost.affordable(1200) == (195, 6) and cost.affordable(90)[1] == 1


# Real trials, in a small workspace of 150 pairs.


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and experts of 150 pictures."""
    folder = tmp_path_factory.mktemp("tuned")
    content = read_yaml(ROOT / "params.yaml")
    content["data"] = {"name": "mine", "folder": str(pictures.with_csv(folder / "mine")), "captions": "captions.csv",
                       "num_val": 20, "num_test": 27, "image_size": 32, "max_caption_words": 20}
    content["compute"]["threads"], content["heads"]["width"], content["encode"]["views"]["num"] = 1, 16, 1
    content["experts"] |= {"num": 2, "batch_size": 51}
    content["grid"] |= {"budgets": [25], "distilled": ["repblend"]}
    content["distill"]["cells"] = {"repblend-25": {}}
    content["distill"]["common"] |= {"iterations": 4, "validate_every": 2, "validation_seeds": 2}
    content["evaluate"] |= {"num_seeds": 2}
    content["evaluate"]["coresets"] = content["evaluate"]["distilled"] = {"epochs": 6, "scored_intervals": 3}
    (folder / "params.yaml").write_text(json.dumps(content))
    for stage, module in (("prepare", prepare), ("encode", encode), ("experts", experts)):
        module.run(Context.of(folder, stage, None))
    return folder


def test_a_trial_is_what_the_stage_validates_and_looks_at_no_test_image(workspace: Path) -> None:
    paths, cell = Paths(workspace), Cell("repblend", 25)
    trials = Trials(read_params(paths.params), paths)
    changes = {"max_start": 2, "optimiser.lr.images": 0.05, "segments": 1}
    value = trials.value(cell, changes)
    content = trials.params.model_dump()
    content["distill"]["methods"]["repblend"] = {"max_start": 2, "segments": 1, "optimiser": {"lr": {"images": 0.05}}}
    distill.run(Context("distill", cell, Params.model_validate(content), paths))
    course = read_json(paths.record("distill", cell))["course"]
    assert value == max(course["checkpoints"]["val_mean_recall"])
    assert value != trials.value(cell, changes | {"segments": 2, "max_start": 1})
    assert trials.params.seed != read_params(paths.params).seed and not (workspace / "checkpoints/tune").exists()


def test_a_trial_of_a_coreset_trains_its_students_at_these_rates(workspace: Path) -> None:
    trials = Trials(read_params(workspace / "params.yaml"), Paths(workspace))
    values = [trials.value(Cell("random", 25), {"lr_img": rate, "lr_txt": rate}) for rate in (1e-6, 0.1, 1e-6)]
    assert values[0] == values[2] != values[1] and all(0 < value <= 100 for value in values)


def test_a_search_with_real_trials_writes_study_plot_and_settings(
        workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    monkeypatch.setattr(tune, "bring", lambda profile, params, cell: 0)  # stages were run by hand
    before = (workspace / "params.yaml").read_text()
    profile, cell = Profile("mine", KINDS[MULTIMODAL], workspace), Cell("repblend", 25)
    assert tune.tune(profile, profile.params(), cell, Limit(60, 3), Length(2), write=True) == 0
    told = capsys.readouterr().out
    assert "trial 2: " in told and re.search(r"^trial +validation +seconds +settings$", told, re.MULTILINE)
    folder = workspace / "paper/studies"
    assert {path.name for path in folder.iterdir()} == {
        f"repblend-25.{kind}" for kind in ("jsonl", "svg", "pdf", "png")}
    changed = (workspace / "params.yaml").read_text() != before
    assert changed == ("has the settings of trial" in told) and profile.params()
    setting = tune.setting_of(workspace, profile.params(), cell, Length(2))  # the same, whatever was written
    assert len(finished(open_study(folder / "repblend-25.jsonl", "mine/repblend-25", setting))) == 3


def test_a_trial_in_seconds_of_a_processor_says_what_it_took_and_can_be_repeated(workspace: Path) -> None:
    paths, cell = Paths(workspace), Cell("repblend", 25)
    trials = Trials(read_params(paths.params), paths)
    short, long = trials.trial(cell, {"segments": 1}, 0.01), trials.trial(cell, {"segments": 1}, 4.0)
    assert short.iterations == LEAST_ITERATIONS < (long.iterations or 0) and long.failed is None
    assert short.processor_seconds < long.processor_seconds
    again = trials.value(cell, {"segments": 1, "iterations": long.iterations,
                                "validate_every": long.validate_every})
    assert again == long.value
    diverged = trials.trial(cell, {"max_start": 99}, 4.0)
    assert diverged.value is None and "max_start 99" in (diverged.failed or "")
