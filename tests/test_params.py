"""`params.yaml`: strict types, closed keys, and the same values by both versions of YAML."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from repblend.matching.optimiser import PARTS
from repblend.params import Params, read_params
from repblend.params.data import OpenMojiData, OwnData, RealData
from repblend.params.reading import read_yaml
from repblend.sections import Section

ROOT = Path(__file__).parents[1]
SHIPPED = (ROOT / "params.yaml").read_text()


def altered(tmp_path: Path, old: str, new: str) -> Path:
    assert SHIPPED.count(old) >= 1
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.replace(old, new, 1))
    return path


def test_the_shipped_file_is_valid() -> None:
    params = read_params(ROOT / "params.yaml")
    assert params.grid.budgets == [50, 100]
    for method in (*params.grid.encoder_distilled, *params.grid.distilled):
        for budget in params.grid.budgets:
            assert params.distill.settings(f"{method}-{budget}").iterations > 0


@pytest.mark.parametrize(("old", "new", "words"), [
    ("seed: 0", f"seed: {10**30}", "seed: Input should be less than"),
    ("seed: 0", "seed: 0\n? " + "k" * 100_000 + "\n: 1", "k: Extra inputs are not permitted"),
    ("seed: 0", 'seed: 0\n"\\e[2J": 1', "\N{REPLACEMENT CHARACTER}[2J: Extra inputs"),
    ("seed: 0", "seed: 0" + "".join(f"\nk{number}: 1" for number in range(999)), "and 959 more"),
    ("budgets: [50, 100]", "budgets: [50, 50]", "budgets: 50 stands there twice"),
    ("image_size: ", "image_size: 9999", "data.image_size: Input should be less than or equal to 4096"),
])
def test_what_is_too_large_or_stands_twice_is_refused_in_few_words(
        tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"params\.yaml") as refused:
        read_params(altered(tmp_path, old, new))
    assert words in str(refused.value) and len(str(refused.value)) < 4000 and "\x1b" not in str(refused.value)


def test_every_parameter_means_the_same_by_both_versions_of_yaml() -> None:
    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: typed(entry) for key, entry in value.items()}
        return [typed(entry) for entry in value] if isinstance(value, list) else (type(value).__name__, value)

    assert typed(yaml.safe_load(SHIPPED)) == typed(read_yaml(ROOT / "params.yaml"))


@pytest.mark.parametrize(("old", "new", "key", "rule"), [
    ("seed: 0", "seed: '0'", "seed", "valid integer"),
    ("seed: 0", "seed: 0.5", "seed", "valid integer"),
    ("seed: 0", "seed: on", "seed", "valid integer"),
    ("threads: 2", "threads: 0", "compute.threads", "greater than 0"),
    ("threads: 2", "threads: true", "compute.threads", "valid integer"),
    ("lr: 0.03", "lr: fast", "experts.lr", "valid number"),
    ("lr: 0.03", "lr: .nan", "experts.lr", "finite number"),
    ("lr: 0.03", "lr: -0.03", "experts.lr", "greater than 0"),
    ("flip: 0.5", "flip: 1.5", "encode.views.flip", "less than or equal to 1"),
    ("seed: 0", "seeds: 0", "seeds", "Extra inputs are not permitted"),
    ("loss: infonce", "loss: infonse", "loss", "'kl'"),
    ("max_train: null", "max_train: 0", "data.max_train", "greater than 0"),
    ("    repblend-50: {}", "    repblend-50: {iterations: many}", "distill", "iterations"),
    ("    repblend-50: {}", "    repblend-50: {iteration: 5}", "distill", "iteration"),
    ("num_seeds: 5", "num_seeds: 1", "evaluate.num_seeds", "greater than or equal to 2"),
    ("coresets: [random, herding, k-center]", "coresets: [random, herding, k-center, facility]",
     "select.lr_img", "lacks ['facility']"),
    ("  width: 256", "  width: 256\n  dropout: 0.1", "encoder_experts.head_dropout", "give both the same"),
    ("  width: 256", "  width: 256\n  dropout: 1.0", "heads.dropout", "less than 1"),
    ("momentum: null", "momentum: {synthetic: 0.5, similarity: 0.5, rates: 0.5}", "optimiser", "null with 'adam'"),
])
def test_a_wrong_value_is_refused_with_its_key_and_rule(tmp_path: Path, old: str, new: str, key: str,
                                                        rule: str) -> None:
    path = altered(tmp_path, old, new)
    with pytest.raises(ValueError) as caught:
        read_params(path)
    message = str(caught.value)
    assert str(path) in message and key in message and rule in message


def test_every_wrong_value_is_named_at_once(tmp_path: Path) -> None:
    path = altered(tmp_path, "seed: 0", "seed: x")
    path.write_text(path.read_text().replace("threads: 2", "threads: y"))
    with pytest.raises(ValueError, match=r"(?s)2 parameter\(s\) to mend.*seed.*compute\.threads"):
        read_params(path)


def test_exponents_are_numbers_as_dvc_reads_them(tmp_path: Path) -> None:
    assert read_params(altered(tmp_path, "weight_decay: 0.0005", "weight_decay: 5e-4")).evaluate.weight_decay == 5e-4


@pytest.mark.parametrize(("content", "words"), [("a: [1", "line"), (None, "no such file")])
def test_files_that_are_not_yaml_or_absent_are_named(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=words):
        read_params(path)


@pytest.mark.parametrize("act", [
    lambda params: setattr(params, "seed", 1),
    lambda params: setattr(params.experts, "lr", 1.0),
])
def test_parameters_cannot_be_changed_once_read(act: Callable[[Params], None]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        act(read_params(ROOT / "params.yaml"))


def test_a_cell_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    path = altered(tmp_path, "    repblend-50: {}",
                   "    repblend-50: {iterations: 7, optimiser: {lr: {images: 0.5}}}")
    distill = read_params(path).distill
    changed, common = distill.settings("repblend-50"), distill.common
    assert (changed.iterations, changed.optimiser.lr.images) == (7, 0.5)
    expected = common.model_dump()
    expected["iterations"] = 7
    expected["optimiser"]["lr"]["images"] = 0.5
    assert changed.model_dump() == expected
    with pytest.raises(ValueError, match="no 'repblend-51'"):
        distill.settings("repblend-51")


def test_defaults_are_written_out_so_that_no_default_escapes_a_settings_file() -> None:
    class Fresh(Section):
        old: int
        new: str = "off"

    assert Fresh(old=1).model_dump() == {"old": 1, "new": "off"}
    assert Fresh(old=1, new="on").model_dump() == {"old": 1, "new": "on"}


REAL = {"name": "flickr30k", "folder": "data/flickr30k", "image_size": 224, "max_caption_words": 60}


def with_data(tmp_path: Path, data: dict[str, Any]) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(read_yaml(ROOT / "params.yaml") | {"data": data}))
    return path


def test_the_kind_of_data_is_told_by_its_fields_and_dumped_as_it_was_given(tmp_path: Path) -> None:
    published = REAL | {"max_caption_words_of": {"test": 30}, "max_test": 10_000, "shards": "shards/*.tar",
                        "expected": {"val": {"images": 1014, "captions": 5070}, "train": {"images": 29_000}}}
    own = REAL | {"captions": "captions.csv", "num_val": 5, "num_test": 5}
    for data, kind in ((REAL, RealData), (published, RealData), (own, OwnData)):
        read = read_params(with_data(tmp_path, data)).data
        assert type(read) is kind and read.model_dump(exclude_unset=True) == data
    assert type(read_params(ROOT / "params.yaml").data) is OpenMojiData


@pytest.mark.parametrize(("data", "words"), [
    (REAL | {"image_size": 0}, "data.image_size: Input should be greater than 0"),
    (REAL | {"name": "../x"}, "data.name"),
    (REAL | {"num_val": 5}, "data.num_val: Extra inputs are not permitted"),
    (REAL | {"max_caption_words_of": {"test": 61}}, "data: .*keep more words than max_caption_words"),
    (REAL | {"max_caption_words_of": {"tests": 6}}, "data.max_caption_words_of.tests"),
    (REAL | {"captions": "a.csv", "num_val": 5}, "data: .*both num_val and num_test"),
    (REAL | {"captions": "a.csv", "annotations": {"val": "v.json"}}, "data: .*not both"),
    ({"name": "flickr30k", "image_size": 64}, "data.name: Input should be 'openmoji'"),
])
def test_wrong_entries_of_data_are_named_by_their_keys(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_params(with_data(tmp_path, data))


@pytest.mark.parametrize("name", ["x;touch y", "$(touch y)", "`touch y`", "a|touch y", "a b", "a\\nb",
                                  "../a", "-a", "<b>", "é"])
@pytest.mark.parametrize("old", ["coresets: [random, herding, k-center]", "encoder_coresets: []",
                                 "distilled: [repblend, repblend-without-blending]",
                                 "all_variants: []", "image_encoder: efficientnet_lite0",
                                 "architectures: [efficientnet_lite1, efficientnet_lite2]"])
def test_what_reaches_a_command_or_a_page_is_a_plain_name(tmp_path: Path, old: str, name: str) -> None:
    key = old.partition(":")[0]
    new = f'{key}: ["{name}"]' if "[" in old else f'{key}: "{name}"'
    with pytest.raises(ValueError, match=rf"{key}(\.0)?: String should match"):
        read_params(altered(tmp_path, old, new))


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10))


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "[" * 200_000, "{a: " * 200_000, "- " * 200_000, "a: 2001-99-99",
                                  "1" * 6000, "a: \x01", "? {a: b}\n: c", "x" * 2**21, "a: *b", "a: 1\n---\nb: 2"])
def test_a_text_that_is_no_parameters_is_one_error_at_once(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        read_yaml(path)


def test_yaml_may_have_aliases_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("\ufeffa: &a {b: 1}\nc: *a\n", "utf-8")
    assert read_yaml(path) == {"a": {"b": 1}, "c": {"b": 1}}


def test_parameters_that_ask_for_more_than_the_data_set_has_say_what_fits(tmp_path: Path) -> None:
    params = read_params(altered(tmp_path, "min_steps: 180", "min_steps: 0"))
    params.check_sizes(3000, 3000)
    with pytest.raises(ValueError, match=r"lower experts\.snapshots_every to 4, or raise experts\.epochs to 70"):
        params.check_sizes(300, 300)
    fitted = altered(tmp_path, "snapshots_every: 20\n  min_steps: 180", "snapshots_every: 4\n  min_steps: 0")
    read_params(fitted).check_sizes(300, 300)
    with pytest.raises(ValueError, match=r"grid\.budgets: 100 is more than the 99 training images"):
        params.check_sizes(99, 3000)


@pytest.mark.parametrize(("changes", "message"), [
    ({"budgets": [2, 50]}, r"grid\.budgets: 2 leaves a distilled set a single pair"),
    ({"compared_budgets": [20]}, r"grid\.compared_budgets: no set has 20 pairs"),
    ({"compared_budgets": [50], "coresets": ["herding"]}, "compared with random pairs, which grid.coresets lacks"),
    ({"encoder_coresets": ["forgetting"]}, r"grid\.encoder_coresets: grid\.coresets has no forgetting"),
    ({"variants": {"rank": ["repblend+rank-2"]}, "all_variants": ["repblend+rank-2"], "variants_budget": 400},
     r"grid\.variants_budget: 400 is more than the 300 training images"),
    ({"regimes": ["repblend+rank-2"], "regime_budgets": [400]},
     r"grid\.regime_budgets: 400 is more than the 300 training images"),
    ({"variants": {"pairs": ["lors+x"]}, "encoder_variants": ["lors+x"]}, r"grid\.encoder_distilled: is empty"),
])
def test_cells_that_no_stage_could_make_are_refused(changes: dict, message: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    content["grid"] |= changes
    content["distill"]["cells"] |= {f"repblend{end}": {} for end in ("-2", "-without-blending-2", "+rank-2-400")} | {
        "repblend-without-blending-2": {}, "lors+x-50": {}}
    with pytest.raises(ValueError, match=message):
        Params.model_validate(content).check_sizes(300, 3000)


@pytest.mark.parametrize(("changes", "message"), [
    ({"regimes": ["repblend"]}, "regimes: repblend is also the name of a method or variant"),
    ({"regimes": ["repblend+x"], "variants": {"rank": ["repblend+x"]}, "all_variants": ["repblend+x"]},
     r"regimes: repblend\+x is also the name of a method or variant"),
    ({"regimes": ["repblend+x"], "pairs": {"x": {"image_encoder": "a", "text_encoder": "b"}}, "encoder_pairs": ["x"]},
     "pairs: x is also the name of a variant"),
])
def test_a_regime_has_a_name_of_its_own(changes: dict, message: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    content["grid"] |= changes
    with pytest.raises(ValueError, match=message):
        Params.model_validate(content)


@pytest.mark.parametrize(("learned", "message"), [
    ([], "at least 1 item"), (["texts", "texts"], "names a part twice"), (["pixels"], "Input should be 'images'")])
def test_what_is_learned_is_some_parts_of_a_set_each_once(learned: list[str], message: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    content["distill"]["cells"]["repblend+some-50"] = {"learned": learned}
    with pytest.raises(ValueError, match=message):
        Params.model_validate(content)


def test_everything_is_learned_unless_parameters_say_otherwise() -> None:
    params = read_params(ROOT / "params.yaml")
    assert params.distill.settings("repblend-100").learned == [*PARTS]


def test_snapshots_are_counted_for_variants_that_match_the_encoder_too() -> None:
    content = read_yaml(ROOT / "params.yaml")
    content["grid"] |= {"variants": {"start": ["lors+late"]}, "encoder_variants": ["lors+late"],
                        "encoder_distilled": ["lors"]}
    content["distill"]["cells"] |= {"lors+late-50": {"max_start": 20}, "lors-50": {}, "lors-100": {}}
    params = Params.model_validate(content)
    assert params.needed_snapshots() == {"experts": 7, "encoder_experts": 24}
    with pytest.raises(ValueError, match=r"encoder_experts: .* but distill needs snapshot 24"):
        params.check_sizes(1695, 1695)


@pytest.mark.parametrize("pairs", [150, 300, 535, 3_000, 150_000])
def test_the_defaults_fit_small_sets_and_large_ones(pairs: int) -> None:
    params = read_params(ROOT / "params.yaml")
    params.check_sizes(pairs, pairs)
    assert params.experts.epochs_of(pairs) == max(16, -(-180 // max(1, pairs // 128)))
