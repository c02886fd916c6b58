"""Numbers of the recorded grid in paper/FINDINGS.md."""

import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from repblend.params import read_params
from repblend.report.intervals import SetResult
from repblend.titles import title
from repro.claims import claims_of
from repro.profiles import profile_of
from tests.docs.documents import ROOT
from tests.docs.numbers_of_searches import equal_search, released_code, wide_search
from tests.docs.recorded import (
    OPENMOJI,
    SECOND_SPLIT,
    SEEDS,
    Bound,
    bind,
    course,
    exact,
    held_out,
    in_points,
    mean,
    measured,
    record,
    sets_of,
    template,
    with_ends,
)

Sets = Mapping[tuple[str, int], Mapping[int, SetResult]]
"""Method and budget -> its sets by their seeds."""


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
    ours, lors, tesla = ([exact(OPENMOJI, f"{method}-{budget}") for budget in grid.budgets]
                         for method in ("repblend", "lors", "tesla-vl"))
    ahead = sorted(one - other for one, other in zip(ours, lors, strict=True))
    yield say("leads LoRS at every budget**, by {} to {} points; LoRS", f"{ahead[0]:.1f}", f"{ahead[-1]:.1f}")
    assert all(one - other < exact(OPENMOJI, f"lors-{budget}", "mean_std")
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
    yield from second_split()
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
    yield from ablation(found, ours)
    for budget, sets in ours.items():
        best = max(each.mean for (_, number), others in found.items() if number == budget for each in others.values())
        assert min(each.mean for each in sets.values()) - best > 5


def ablation(found: Sets, ours: Mapping[int, Mapping[int, SetResult]]) -> Iterator[Bound]:
    """Yield what symmetric matching, blending and both add to LoRS, and what becomes of random pairs at 200.

    Args:
        found: method and budget -> the sets of methods that match the encoder.
        ours: budget -> those of RepBlend.
    """
    say, at_200 = partial(bind, "paper/FINDINGS.md"), ("mtt-vl", "tesla-vl", "lors", "repblend-without-matching")
    matched, blended = ({budget: sets_of(method, budget) for budget in (50, 100)}
                        for method in ("repblend-without-blending", "repblend-without-matching"))
    added = [[with_ends(sets[budget], found["lors", budget]) for budget in (50, 100)]
             for sets in (matched, blended, ours)]
    assert all(low > 0 for rows in (added[0], added[2]) for _, low, _ in rows)
    assert all(high < low for (_, low, _), (_, _, high) in zip(added[0], added[1], strict=True))
    yield say("symmetric matching gives {} and {}, blending {} and {}, both together {} and {}. - **A second", *(
        in_points(*each) for rows in added for each in rows))
    recalls = {method: mean(OPENMOJI, f"{method}-200") for method in ("random+encoder-students", *at_200)}
    assert max(recalls, key=lambda method: float(recalls[method])) == "random+encoder-students"
    yield say("starts from** ({}): MTT-VL {}, TESLA-VL {}, LoRS {}, RepBlend without SM {}. Validation",
              *recalls.values())
    yield say("chose iteration {} of MTT-VL, {}, {} and {} of the others, of 24. LoRS", *(
        str(record(OPENMOJI, f"distill/{method}-200")["course"]["chosen_iteration"]) for method in at_200))
    assert all(abs(exact(OPENMOJI, f"lors-{budget}") - exact(OPENMOJI, f"repblend-without-matching-{budget}"))
               < exact(OPENMOJI, f"lors-{budget}", "mean_std") for budget in (20, 50, 100, 200))


def second_split() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of the split with other drawings held out."""
    def reached(*methods: str) -> list[float]:
        return [max(exact(SECOND_SPLIT, f"{method}-{budget}") for method in methods) for budget in (50, 100)]

    def over(others: list[float]) -> list[float]:
        return [one - other for one, other in zip(ours, others, strict=True)]

    say = partial(bind, "paper/FINDINGS.md")
    ours, without, lors, tesla = map(reached, ("repblend", "repblend-without-blending", "lors", "tesla-vl"))
    real = reached(*read_params(SECOND_SPLIT / "params.yaml").grid.coresets)
    assert min(over(lors) + over(real)) > 3 and max(over(without)) < 0
    yield say("the same settings, one set each: RepBlend has {} and {} at 50 and 100 pairs, LoRS {} and {}, "
              "TESLA-VL {} and {}, the best real pairs {} and {}, RepBlend without RB {} and {}. The", *(
                  f"{value:.1f}" for values in (ours, lors, tesla, real, without) for value in values))
    yield say("RepBlend leads LoRS by {} and {} there, and RB costs {} and {} points", *(
        f"{abs(value):.1f}" for value in (*over(lors), *over(without))))


def transfer() -> Iterator[Bound]:
    """Yield what paper/FINDINGS.md says of other encoders and other tasks."""
    say, found, spread = partial(bind, "paper/FINDINGS.md"), {}, {}
    for method in ("random", "herding", "mtt-vl", "tesla-vl", "lors", "repblend-without-matching",
                   "repblend-without-blending", "repblend"):
        content = record(OPENMOJI, f"transfer/{method}-100")
        protocols = [each["protocols"]["held-out"] for kind in ("architectures", "zero_shot")
                     for each in content[kind].values()]
        found[method], spread[method] = ([each[of].get("mean_recall", each[of].get("accuracy")) for each in protocols]
                                         for of in ("mean", "std"))
    columns = ("mean recall, accuracy by ten words", "Lite1", "Lite2", "icons by their names", "ten words")
    yield say(template(columns, map(title, found)), *(f"{value:.1f}" for values in found.values() for value in values))
    assert all(abs(ours - other) < 3 for ours, other in zip(found["repblend"][:2], found["random"], strict=False))
    distilled, real = [*found][2:], ("random", "herding")
    words = sorted(spread[method][3] for method in distilled)
    assert min(found[method][3] for method in distilled) > max(found[method][3] for method in real)
    leads = [(one, other) for one in distilled for other in distilled
             if found[one][3] - found[other][3] >= math.hypot(spread[one][3], spread[other][3])]
    assert leads == [("repblend-without-blending", "repblend-without-matching")]
    arms = ("repblend", "repblend-without-blending")
    others = max(each[2] for method, each in found.items() if method not in arms)
    assert all(found[arm][2] > others for arm in arms)
    yield say("their students differ by {} to {} points. On icons both of RepBlend's have the most, {} and {} against "
              "at most {} (students differ by {} and {})", *(f"{value:.1f}" for value in (
                  words[0], words[-1], *(found[arm][2] for arm in arms), others, *(spread[arm][2] for arm in arms))))
