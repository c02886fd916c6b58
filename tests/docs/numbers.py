"""Numbers in the documents, and the recorded files that they come from.

A sentence or table of a document is written here with `{}` where a number stands. The test asks that the document has
it with the numbers of today; `python -m tests.docs.numbers` puts them in and prints what it changed.

Not bound, because no file holds them: the minutes of `make reproduce`, `make test`, `repro verify` and `make bench`,
what `make bench` printed, what another processor gave, and the search that paper/FINDINGS.md tells of.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from repblend.methods import METHODS
from repblend.params import read_params
from repblend.ufc.report.ufc_records import UfcRecords, kind_title
from repblend.ufc.stages.pipeline import StudentCell
from repro.claims import claims_of
from repro.profiles import profile_of
from tests.docs.documents import ROOT
from tests.docs.numbers_of_findings import findings
from tests.docs.recorded import (
    GLYPHS,
    OPENMOJI,
    QUICKSTART,
    SEEDS,
    Bound,
    bind,
    concentration,
    deviation,
    gigabytes,
    held_out,
    locked,
    mean,
    minutes,
    processor,
    table,
    template,
)


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
