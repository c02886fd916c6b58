"""Numbers in the documents, and the recorded files that they come from.

A sentence or table of a document is written here with `{}` where a number stands. The test asks that the document has
it with the numbers of today; `python -m tests.docs.numbers` puts them in and prints what it changed.

Not bound, because no file holds them: the minutes of `make reproduce`, `make test`, `repro verify` and `make bench`,
what `make bench` printed, what another processor gave, and the search that paper/FINDINGS.md tells of.
"""

import csv
import json
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import optuna
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from repblend.methods import METHODS
from repblend.params import read_params
from repblend.report.intervals import SetResult, difference
from repblend.report.published import read_published
from repblend.store import JSON
from repblend.titles import title
from repblend.ufc.report.ufc_records import UfcRecords, kind_title
from repblend.ufc.stages.pipeline import StudentCell
from repro.claims import claims_of
from repro.profiles import profile_of
from repro.tune import STUDIES, finished
from tests.docs.documents import ROOT

QUICKSTART, OPENMOJI, GLYPHS = ROOT, ROOT / "profiles/openmoji", ROOT / "profiles/ufc-glyphs"
SHIPPED = ROOT / "artifacts/files/md5"
NUMBER = r"([^|\n]{1,60}?)"
SEEDS = ("", "+seed-1", "+seed-2")
"""What stands behind a method's name, for every set of it."""


class Bound(NamedTuple):
    """A piece of a document with numbers in it."""

    document: str
    text: str
    """As the document has it, `{}` for each number, and words on both sides of it; any white space stands for any."""
    values: tuple[str, ...]

    def find(self, content: str) -> re.Match:
        """Return where it stands; raises `ValueError` unless it stands there exactly once."""
        parts = [r"\s+".join(map(re.escape, re.split(r"\s+", part))) for part in self.text.split("{}")]
        found = list(re.finditer(NUMBER.join(parts), content))
        if len(found) != 1:
            raise ValueError(f"{self.document}: found {len(found)} times, expected once: {self.text}")
        return found[0]


def held_out(workspace: Path, cell: str, form: str = "{mean:.1f} ± {mean_std:.1f}") -> str:
    """Return the mean recall of a cell by the held-out protocol as documents write it."""
    return form.format(**json.loads((workspace / f"metrics/held-out/{cell}.json").read_text()))


def mean(workspace: Path, cell: str) -> str:
    return held_out(workspace, cell, "{mean:.1f}")


def deviation(workspace: Path, cell: str) -> str:
    return held_out(workspace, cell, "{mean_std:.1f}")


@cache
def runs(workspace: Path) -> list[JSON]:
    return [json.loads(line) for line in (workspace / "runs.jsonl").read_text().splitlines()]


def minutes(workspace: Path) -> float:
    """Return how long stages ran, those side by side counted once; raises `ValueError` if one ran in parts."""
    if stopped := [run["stage"] for run in runs(workspace) if run.get("resumed")]:
        raise ValueError(f"{workspace}/runs.jsonl: {', '.join(stopped)} ran in parts. Run them again without a stop")
    total = until = 0.0
    for begin, seconds in sorted((datetime.fromisoformat(run["started"]).timestamp(), run["wall_seconds"])
                                 for run in runs(workspace)):
        end = begin + seconds
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total / 60


def gigabytes(workspace: Path) -> str:
    """Return the peak memory of the hungriest stage."""
    return f"{max(run['peak_memory_mib'] for run in runs(workspace)) / 1024:.1f} GB"


def processor(workspace: Path) -> str:
    """Return the processors that a workspace was recorded on."""
    return ", ".join(sorted({re.sub(r"\(R\)|\(TM\)| CPU.*| \d+-Core.*", "", run["machine"]["processor"]).strip()
                             for run in runs(workspace)}))


@cache
def locked(workspace: Path) -> dict[str, str]:
    """Return every output of `dvc.lock` with its MD5."""
    stages = yaml.load((workspace / "dvc.lock").read_text(), yaml.CSafeLoader)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def record(workspace: Path, cell: str) -> JSON:
    """Return `records/<cell>/record.json`, from the workspace or else from what the clone ships."""
    folder = f"records/{cell}"
    path = workspace / folder / "record.json"
    if not path.is_file():
        listed = json.loads(_shipped(locked(workspace)[folder]).read_text())
        path = _shipped(next(file["md5"] for file in listed if file["relpath"] == "record.json"))
    return json.loads(path.read_text())


def _shipped(md5: str) -> Path:
    return SHIPPED / md5[:2] / md5[2:]


def concentration(cell: str, key: str) -> str:
    return f"{record(OPENMOJI, f'embed/{cell}')['measures']['concentration_ratio_img'][key]:.2f}"


def course(cell: str, name: str) -> list[float]:
    """Return a measure of collapse at the checkpoints of a distillation."""
    return record(OPENMOJI, f"distill/{cell}")["course"]["checkpoints"][name]


def measured(cell: str, name: str) -> str:
    """Return a measure of collapse after the last iteration of a distillation."""
    return f"{course(cell, name)[-1]:.3f}"


def table(workspace: Path, corner: str, methods: Sequence[str], budgets: Sequence[int]) -> tuple[str, ...]:
    """Return a table of recalls as Markdown with `{}` in its cells, and what belongs there."""
    return (template([corner, *(f"{budget} pairs" for budget in budgets)], map(title, methods)),
            *(held_out(workspace, f"{method}-{budget}") for method in methods for budget in budgets))


def template(columns: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table as Markdown with `{}` in its cells, but for the first of each row."""
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|",
                      *(row(name, len(columns) - 1) for name in rows)])


def row(name: str, num_cells: int) -> str:
    return f"| {name} |" + " {} |" * num_cells


def bind(document: str, text: str, *values: str) -> Bound:
    return Bound(document, text, values)


def readme() -> Iterator[Bound]:
    """Yield what the README says."""
    say = partial(bind, "README.md")
    quick, whole = (read_params(workspace / "params.yaml").grid for workspace in (QUICKSTART, OPENMOJI))
    encoder_coresets = [f"{coreset}+encoder-students" for coreset in whole.encoder_coresets]
    for workspace, corner, coresets, distilled, budgets in (
            (QUICKSTART, "students learn from", quick.coresets, quick.distilled, quick.budgets),
            (OPENMOJI, "heads", whole.coresets, whole.distilled, whole.budgets),
            (OPENMOJI, "encoder and head", encoder_coresets, whole.encoder_distilled, whole.budgets)):
        yield say(*table(workspace, corner, [*coresets, *sorted(distilled, key=[*METHODS].index)], budgets))
    yield say("All 1,695 real pairs give {}, chance {}. Deviations are", held_out(QUICKSTART, "full-data"),
              mean(QUICKSTART, "chance"))
    yield say("all real pairs give {}, five experts", held_out(OPENMOJI, "full-data+encoder-students"))
    yield say("(2 cores, {}), ", processor(QUICKSTART))
    yield say("), {} of them its stages", f"{minutes(QUICKSTART):.0f}")
    yield say("(recorded on {}).", processor(OPENMOJI))
    pair = ("repblend-100", "random-100")
    yield say("`make reproduce` | {} against {} | ± {} and ± {}, five students each | {} min | {} |",
              *(mean(QUICKSTART, cell) for cell in pair), *(deviation(QUICKSTART, cell) for cell in pair),
              f"{minutes(QUICKSTART):.0f}", gigabytes(QUICKSTART))
    yield say("`repro verify` | {} outputs, 0 not the same", str(len(locked(QUICKSTART))))
    pair = ("repblend-100", "lors-100")
    yield say("100 pairs: {} against {} | ± {} and ± {}, five students each | {} h of what is recorded | {} |",
              *(mean(OPENMOJI, cell) for cell in pair), *(deviation(OPENMOJI, cell) for cell in pair),
              f"{minutes(OPENMOJI) / 60:.1f}", gigabytes(OPENMOJI))
    yield say("| {} against {}; random pairs {}, without RB {} | ± {}, {} and {}, ten reference models", *(
        concentration(cell, "mean") for cell in (*pair, "random-100", "repblend-without-blending-100")), *(
        concentration(cell, "std") for cell in (*pair, "random-100")))
    spreads = [statistics.stdev(float(mean(OPENMOJI, f"{method}{seed}-{budget}")) for seed in SEEDS)
               for method in (*quick.coresets, *quick.distilled) for budget in quick.budgets]
    yield say("deviation of {} to {} more (three sets of each in", f"{min(spreads):.1f}", f"{max(spreads):.1f}")
    methods = json.loads((ROOT / "benchmarks/efficiency.json").read_text())["methods"]
    ours, lors, released = (methods[name]["seconds_per_iteration"]
                            for name in ("repblend", "lors", "lors-double-backward"))
    yield say("| {} s against {} s; {} s as LoRS was released | {} to {} s and {} to {} s, {} rounds | 5 min | {} |",
              f"{ours['median']:.2f}", f"{lors['median']:.1f}", f"{released['median']:.1f}", f"{ours['min']:.2f}",
              f"{ours['max']:.2f}", f"{lors['min']:.1f}", f"{lors['max']:.1f}", str(ours["rounds"]),
              f"{max(method['peak_memory_mib'] for method in methods.values()) / 1024:.1f} GB")


def findings() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of the recorded grid; the search before it left no files."""
    say, grid = partial(bind, "paper/FINDINGS.md"), read_params(OPENMOJI / "params.yaml").grid
    best_of = {title(method): [method] for method in ("repblend", "lors", "tesla-vl")} | {
        "best real pairs, students that train the encoder": [f"{name}+encoder-students"
                                                             for name in grid.encoder_coresets],
        "best real pairs, students that train heads": grid.coresets}
    reached = {name: [max((mean(OPENMOJI, f"{method}-{budget}") for method in methods), key=float)
                      for budget in grid.budgets] for name, methods in best_of.items()}
    yield say(template(["pairs", *map(str, grid.budgets)], reached),
              *(value for values in reached.values() for value in values))
    ours, lors, tesla = ([float(value) for value in values] for values in [*reached.values()][:3])
    assert all(one - other >= 5 for one, other in zip(ours, lors, strict=True))
    assert all(one - other < float(deviation(OPENMOJI, f"lors-{budget}"))
               for one, other, budget in zip(lors, tesla, grid.budgets, strict=True))
    plain, start, weak, middle, strong, more, less = (held_out(OPENMOJI, f"{name}-50") for name in (
        "repblend", "repblend+start-1", "repblend-with-noise+low", "repblend-with-noise+middle",
        "repblend-with-noise+high", "repblend+rank-40", "repblend+rank-2"))
    of_sets = [float(mean(OPENMOJI, f"repblend{seed}-50")) for seed in SEEDS]
    yield say("of the same settings, are {}, {} and {}, a standard deviation of {}; two single sets", *(
        f"{value:.1f}" for value in (*of_sets, statistics.stdev(of_sets))))
    yield say("(`max_start` 1) gives {} at 50 pairs, not less than the chosen 3 with {}. The search", start, plain)
    yield say("does no harm ({} and {} against {}); strong noise, as large as the representations themselves, "
              "ruins the set ({})", weak, middle, plain, strong)
    yield say("Rank decides nothing here (40: {}; 10: {}; 2: {})", more, plain, less)
    alike = [measured(f"{cell}-50", "intra_modal_similarity_img") for cell in (
        "repblend", "repblend-with-noise+low", "repblend-without-blending", "repblend-with-noise+high")]
    assert alike[0] < alike[1] <= alike[2] < alike[3]
    yield say("images are alike by {}, with weak noise by {} and with neither by {}; strong noise raises it to {}. "
              "What", *alike)
    yield from blending()
    with (ROOT / "paper/studies/by-hand.csv").open(encoding="utf-8", newline="") as file:
        tried = {(row["pixels"], row["iteration"]): row for row in csv.DictReader(file)}
    early, late, other = tried["plain", "40"], tried["plain", "120"], tried["frequencies", "120"]
    yield say("when they have fallen: {} against {} after 40 of 120 iterations, {} against {} at the end.", *(
        f"{float(row[which]):.1f}" for row in (early, late) for which in ("averaged", "last")))
    yield say("in the place of the pixels gave {} against {}. Both are", *(
        f"{float(row['last']):.1f}" for row in (other, late)))
    yield from encoder_sets()
    yield from transfer()
    yield from wide_search()
    yield from equal_search()
    yield from released_code()


def blending() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of both arms of blending in two regimes."""
    say, arms = partial(bind, "paper/FINDINGS.md"), ("repblend", "repblend-without-blending")
    for words, regime, budget in (("this project's settings, 50 pairs", "", 50),
                                  ("this project's settings, 100 pairs", "", 100),
                                  ("`published`, 50 pairs", "+published", 50)):
        yield say(f"| {words} | {{}}, {{}}, {{}} | {{}}, {{}}, {{}} |", *(
            mean(OPENMOJI, f"{arm}{regime}{seed}-{budget}") for arm in arms for seed in SEEDS))
    yield say("| `published`, 200 pairs (one set) | {} | {} |", *(
        mean(OPENMOJI, f"{arm}+published-200") for arm in arms))
    random, labels, texts, everything, pixels, only_texts = (mean(OPENMOJI, f"{cell}-50") for cell in (
        "random", "repblend+fixed-pairs", "repblend+fixed-pixels", "repblend", "repblend+only-pixels",
        "repblend+only-texts"))
    yield say("Random pairs give {}, with a learned similarity and rates {}, with texts as well {}, and all that "
              "RepBlend learns {}: the pixels carry the last {}. Alone they give {}, texts alone {} (one set",
              random, labels, texts, everything, f"{float(everything) - float(texts):.1f}", pixels, only_texts)
    def leads(regime: str, budget: int, seeds: Sequence[str] = SEEDS) -> list[float]:
        with_it, without = ([float(mean(OPENMOJI, f"{arm}{regime}{seed}-{budget}")) for seed in seeds] for arm in arms)
        return [one - other for one, other in zip(with_it, without, strict=True)]

    assert max(leads("", 50) + leads("", 100)) < 0
    claim = next(each for each in claims_of(profile_of(ROOT, "openmoji")) if each.entry.name == "blending-helps")
    assert claim.said == "undecided"
    yield say("all six of six**: the difference is {} at 50 pairs and {} at 100 (mean and", *(
        next(each.shown for each in claim.trials if each.where == f"{budget} pairs") for budget in (50, 100)))
    grid = read_params(OPENMOJI / "params.yaml").grid
    pairs = sorted(leads(f"+{pair}", budget, ("",))[0] for pair in grid.pairs for budget in grid.pair_budgets)
    behind = [f"{-lead:.1f}" for lead in pairs if lead < 0]
    assert pairs[-2] < 0 < pairs[-1] < 0.5 and (len(behind), len(pairs)) == (8, 9)
    yield say("are behind in eight of nine, by {} to {} points, and ahead by {} in the ninth", behind[-1], behind[0],
              f"{pairs[-1]:.1f}")
    published, large = leads("+published", 50), leads("+published", 200, SEEDS[:1])
    assert min(published + large) > 0
    apart, low, high = with_ends(*(sets_of(f"{arm}+published", 50) for arm in arms))
    assert low < 0 < high
    yield say("it leads in every set of 50 pairs, by {}, {} and {}, and in the one of 200 by {}. Three sets do not "
              "decide it: {} at", *(f"{lead:.1f}" for lead in (*published, *large)), in_points(apart, low, high))
    less = [_over_sets("intra_modal_similarity_img", *cell) for cell in (("+published", 50), ("", 50), ("", 100))]
    gaps = [_over_sets("modality_gap", *cell) for cell in (("+published", 50), ("", 50), ("", 100))]
    assert [high < 0 for _, _, high in (*less, *gaps)] == [True, True, False, True, False, False]
    shown = (f"{each:+.3f} [{low:+.3f}, {high:+.3f}]" for each, low, high in (*less, *gaps))
    yield say("image similarity {} in the paper's regime at 50 pairs, {} in ours at 50 and {} at 100; the gap changes "
              "by {} there and by {} and then {}: both", *shown)
    name = "intra_modal_similarity_img"
    yield say("image similarity is {}, after the last without blending {} in our",
              f"{course('repblend-without-blending-50', name)[0]:.3f}",
              measured("repblend-without-blending-50", name))


def _over_sets(name: str, regime: str, budget: int) -> tuple[float, float, float]:
    """Return blending minus none in a measure after the last iteration: the mean over sets, and its interval."""
    sets = [{number: SetResult(course(f"{arm}{regime}{seed}-{budget}", name)[-1])
             for number, seed in enumerate(SEEDS)} for arm in ("repblend", "repblend-without-blending")]
    return with_ends(*sets)


def with_ends(first: Mapping[int, SetResult], second: Mapping[int, SetResult]) -> tuple[float, float, float]:
    """Return the difference of two methods and the ends of its interval over sets."""
    found = difference(first, second)
    ends = found.interval()
    assert ends is not None
    return found.estimate, *ends


def in_points(estimate: float, low: float, high: float) -> str:
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]"


def sets_of(method: str, budget: int) -> dict[int, SetResult]:
    """Return the mean recall of every set of a method, with its students' deviation."""
    students = read_params(OPENMOJI / "params.yaml").evaluate.num_seeds
    contents = (json.loads((OPENMOJI / f"metrics/held-out/{method}{seed}-{budget}.json").read_text()) for seed in SEEDS)
    return {number: SetResult(each["mean"], each["mean_std"], students) for number, each in enumerate(contents)}


def encoder_sets() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of several sets of two methods that match the encoder."""
    found = {(method, budget): sets_of(method, budget) for method in ("lors", "tesla-vl") for budget in (50, 100)}
    say = partial(bind, "paper/FINDINGS.md")
    yield say("LoRS {}, {} and {} at 50 pairs and {}, {} and {} at 100, TESLA-VL {}, {} and {}, then {}, {} and {}. "
              "LoRS minus", *(f"{each.mean:.1f}" for sets in found.values() for each in sets.values()))
    apart = [with_ends(found["lors", budget], found["tesla-vl", budget]) for budget in (50, 100)]
    assert all(low < 0 < high for _, low, high in apart)
    yield say("LoRS minus TESLA-VL is {} at 50 pairs and {} at 100 (mean", *(in_points(*each) for each in apart))
    yield say("LoRS's first sets of 50 and 100 pairs are those of iteration {} and {}, TESLA-VL's of {} and {}, of", *(
        str(record(OPENMOJI, f"distill/{method}-{budget}")["course"]["chosen_iteration"]) for method, budget in found))
    ours = {budget: sets_of("repblend", budget) for budget in (50, 100)}
    leads = [with_ends(sets, found["lors", budget]) for budget, sets in ours.items()]
    assert all(low > 0 for _, low, _ in leads)
    yield say("RepBlend minus LoRS is {} and {}. Every", *(in_points(*each) for each in leads))
    for budget, sets in ours.items():
        best = max(each.mean for (_, number), others in found.items() if number == budget for each in others.values())
        assert min(each.mean for each in sets.values()) - best > 5


def transfer() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of other encoders and other tasks."""
    say, found = partial(bind, "paper/FINDINGS.md"), {}
    for method in ("random", "herding", "mtt-vl", "tesla-vl", "lors", "repblend-without-matching",
                   "repblend-without-blending", "repblend"):
        content = record(OPENMOJI, f"transfer/{method}-100")
        encoders, tasks = ([each["protocols"]["held-out"]["mean"] for each in content[kind].values()]
                           for kind in ("architectures", "zero_shot"))
        found[method] = [*(each["mean_recall"] for each in encoders),
                         *(each.get("mean_recall", each.get("accuracy")) for each in tasks)]
    columns = ("mean recall, accuracy by ten words", "Lite1", "Lite2", "icons by their names", "ten words")
    yield say(template(columns, map(title, found)), *(f"{value:.1f}" for values in found.values() for value in values))
    assert all(abs(ours - other) < 3 for ours, other in zip(found["repblend"][:2], found["random"], strict=False))
    icons = [each[2] for each in found.values()]
    assert max(icons) - min(icons) < 3 and found["lors"][3] > found["repblend"][3]


def wide_search() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of the search that looked far from the present settings."""
    with (ROOT / "paper/studies/wide.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    arms = ("repblend", "repblend-without-blending")
    found = [[row for row in rows if (row["method"], row["pairs"]) == (arm, "50")] for arm in arms]
    best = [max(trials, key=lambda row: float(row["validation"])) for trials in found]
    words = {7: "seven", 8: "Eight", 12: "twelve"}
    failed = [sum(float(row["validation"]) < FELL_APART for row in trials) for trials in found]
    say = partial(bind, "paper/FINDINGS.md")
    yield say("does not work.** {} of RepBlend's {} trials and {} without blending stayed below {} %", words[failed[0]],
              words[len(found[0])], words[failed[1]], f"{FELL_APART:g}")
    yield say("RepBlend rose from {} to {} by shorter batches ({} pairs)", *(
        f"{float(row['validation']):.1f}" for row in (found[0][0], best[0])), best[0]["batch_size"])
    yield say("without blending from {} to {} by {} segments", *(
        f"{float(row['validation']):.1f}" for row in (found[1][0], best[1])), words[int(best[1]["segments"])])
    at_100 = {(row["method"], row["trial"]): f"{float(row['validation']):.1f}" for row in rows if row["pairs"] == "100"}
    yield say("the same settings gave {} and {}, where RepBlend's present ones give {}. So none", *(
        at_100[arm, row["trial"]] for arm, row in zip(arms, best, strict=True)), at_100["repblend", "0"])


class Trial(NamedTuple):
    """Of a study."""

    recall: float
    iterations: int
    segments: int


def trials(cell: str) -> list[Trial]:
    """Return the finished trials of a study of equal searches, in their order."""
    name = f"{cell}-300s"
    study = optuna.load_study(study_name=f"{OPENMOJI.name}/{name}", storage=JournalStorage(
        JournalFileBackend(str(OPENMOJI / STUDIES / f"{name}.jsonl"))))
    return [Trial(trial.value, trial.user_attrs["iterations"], trial.user_attrs["values"]["segments"])
            for trial in finished(study)]


def equal_search() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of searches with equal seconds."""
    say, of_heads = partial(bind, "paper/FINDINGS.md"), ("repblend", "repblend-without-blending")
    found = {method: trials(f"{method}-100") for method in (*of_heads, "mtt-vl", "tesla-vl", "lors",
                                                            "repblend-without-matching")}
    for method, rows in found.items():
        steps = [row.iterations for row in rows]
        yield say(f"| {title(method)} | {{}} | {{}}, {{}}, {{}} | {{}} to {{}} |", *(
            f"{row.recall:.1f}" for row in rows), str(min(steps)), str(max(steps)))
    heads, encoders = ([row for method, rows in found.items() if (method in of_heads) == wanted for row in rows]
                       for wanted in (True, False))
    assert min(row.recall for row in heads) > max(row.recall for row in encoders)
    yield say("The worst trial that matches heads ({}) is above the best that matches the encoder ({})",
              f"{min(row.recall for row in heads):.1f}", f"{max(row.recall for row in encoders):.1f}")
    with (ROOT / "paper/studies/wide.csv").open(encoding="utf-8", newline="") as file:
        short = next(row for row in csv.DictReader(file) if (row["method"], row["pairs"]) == ("repblend", "100"))
    now, *others = found["repblend"]
    above = sorted(row.recall - now.recall for row in others)
    mtt = found["mtt-vl"]
    yield say("but for MTT-VL, whose best is {} above, and RepBlend, whose others are {} to {} above with",
              *(f"{value:.1f}" for value in (max(row.recall for row in mtt) - mtt[0].recall, above[0], above[-1])))
    assert all(rows[0] == max(rows) for method, rows in found.items() if method not in ("mtt-vl", "repblend"))
    yield say("does not help RepBlend: {} iterations of its present settings give {}, {} had given {} in the search "
              "before", str(now.iterations), f"{now.recall:.1f}",
              short["iterations"], f"{float(short['validation']):.1f}")
    yield say("had no time for more than {} iterations",
              str(max(row.iterations for row in encoders if row.segments >= 4)))


FELL_APART = 16.0
"""Percent on validation: a set of 50 pairs has about as much before anything is learned."""


def released_code() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says that the released code gave on this data."""
    found = {(row["method"], row["seed"], row["iteration"]): str(row.number("mean", "std"))
             for row in read_published(ROOT, "released-code")}
    arms = ("repblend", "repblend-without-blending")
    yield bind("paper/FINDINGS.md", "with blending and without: {} and {} at iteration 160, {} and {} at 80; another "
               "seed {} and {}. These", *(found[arm, seed, iteration] for seed, iteration in (
                   ("first", 160), ("first", 80), ("second", None)) for arm in arms))


def glyphs() -> Iterator[Bound]:
    """Yield what the unimodal READMEs say of the recorded draws: accuracies, and every comparison of a claim."""
    records = UfcRecords.of(GLYPHS)
    params, student = records.params, records.params.validation.students[0]
    say, kinds = partial(bind, "src/repblend/ufc/README.md"), records.cells(params.budgets[0])
    columns = ["students learn from", *(f"{budget} per class" for budget in params.budgets)]
    yield say(template(columns, (kind_title(*kind) for kind in map(_kind, kinds))),
              *(over_draws(f"{name}{{}}+{labels}+{student}-{budget}", params.seeds)
                for name, labels in map(_kind, kinds) for budget in params.budgets))
    reached = [_accuracy(f"teacher+{name}") for name in params.teachers.architectures]
    yield say("glyphs, reach {} to {} %", f"{min(reached):.1f}", f"{max(reached):.1f}")
    say = partial(bind, "profiles/ufc-glyphs/README.md")
    found = [(claim.entry.name, each) for claim in claims_of(profile_of(ROOT, "ufc-glyphs"))
             if claim.entry.measure == "accuracy" for each in claim.run]
    for name, each in found:
        yield say(f"| {name} | {each.where.removesuffix(' per class')} | {{}} | {{}} |", each.shown, each.said)
    said = {name: [each.said for other, each in found if other == name] for name, _ in found}
    assert said == {"ufc-over-random": ["holds"] * 2, "dynamic-over-static": ["undecided"] * 2,
                    "ufc-over-random-with-labels": ["does not hold", "undecided"],
                    "compensators-help": ["does not hold", "undecided"],
                    "dynamic-over-random-dynamic": ["does not hold"] * 2}, f"mend the words beside the table: {said}"
    assert all(each.shown.startswith("-") for name, each in found if name != "ufc-over-random")


def _kind(cell: StudentCell) -> tuple[str, str]:
    return cell.set.method, cell.labels


def _accuracy(cell: str) -> float:
    return float(json.loads((GLYPHS / f"metrics/held-out/{cell}.json").read_text())["accuracy"])


def over_draws(cell: str, seeds: Sequence[int]) -> str:
    """Return mean and deviation over the draws of real images; `{}` in the cell's name is where a draw stands."""
    found = [_accuracy(cell.format(draw)) for draw in ("", *(f"+seed-{seed}" for seed in seeds))]
    return f"{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f}"


def bring_up_to_date() -> None:
    """Put the numbers of today into the documents and print what changed."""
    for bound in (*readme(), *findings(), *glyphs()):
        path = ROOT / bound.document
        content = path.read_text("utf-8")
        match = bound.find(content)
        for number, value in reversed([*enumerate(bound.values, start=1)]):
            if match[number] != value:
                print(f"{bound.document}: {match[number]} -> {value} in: {' '.join(match[0].split())}")
                content = content[:match.start(number)] + value + content[match.end(number):]
        path.write_text(content, "utf-8")


if __name__ == "__main__":
    bring_up_to_date()
