"""What a person decides by, of a plan: hours by part and by purpose, memory, disk, downloads, and what a part would
take. For a suite of profiles it is one page.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from repblend.costs import DISTILL
from repblend.methods import METHODS
from repblend.report.table import in_columns

if TYPE_CHECKING:
    from repro.plan import Priced

Plans = Mapping[str, Sequence["Priced"]]
"""Profile -> its stages."""
InWords = Callable[[float], str]
"""From seconds, or bytes, to words."""

# Hours by what they are for.

PURPOSES = {"encode": "features", "experts": "training experts", "encoder-experts": "training encoder experts",
            "distill": "matching", "select": "coresets"}
"""Module -> purpose; of `distill` the students are for validation, all other modules' students for evaluation."""
VALIDATIONS, EVALUATION, OWN = "validations while distilling", "students of finished sets", "variants and +own settings"


def seconds_by_purpose(rows: Iterable["Priced"]) -> dict[str, float]:
    """Return the seconds that are still to be spent by purpose; those of variants, of any purpose, once more."""
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        module, known = row.stage.module, sum(row.estimate.kinds.values())
        for kind, part in (row.estimate.kinds or {"": row.seconds}).items() if row.seconds else ():
            of_students = module == "distill" and kind and kind not in DISTILL.values()
            purpose = VALIDATIONS if of_students else PURPOSES.get(module, EVALUATION)
            seconds[purpose] += row.seconds * part / known if known else part
        if row.is_variant:
            seconds[OWN] += row.seconds
    return seconds


# What a part of it would take.


def subsets(rows: Sequence["Priced"]) -> Iterator[tuple[str, float, float]]:
    """Yield the title of each distilled method, the seconds that it alone would take, and those with imported experts.
    """
    def of(*parts: str) -> float:
        return sum(row.seconds for row in rows if row.part in parts)

    for method in METHODS.values():
        if own := of(method.title):
            on_encoder = method.matched == "image-encoder"
            yield (method.title, own + of("data and features", "experts", *["encoder experts"] * on_encoder),
                   own + of("data and features"))


def subsets_text(rows: Sequence["Priced"], in_words: InWords) -> str:
    """Return what each method alone would take, in one line; empty where none runs."""
    alone = "; ".join(f"{title} {in_words(whole)} (with imported experts {in_words(imported)})"
                      for title, whole, imported in subsets(rows))
    return f"One method alone: {alone}." if alone else ""


# One page for several profiles.


def page(plans: Plans, in_words: InWords, size_in_words: InWords) -> str:
    """Return hours by part, by purpose and by method, disk and memory, with a column per profile and one for all."""
    tables = [_hours(plans, in_words), _purposes(plans, in_words), _methods(plans, in_words),
              _sizes(plans, size_in_words)]
    return "\n\n".join("\n".join(in_columns(table)) for table in tables)


def _columns(plans: Plans, of: Callable[[Sequence["Priced"]], float], in_words: InWords) -> list[str]:
    values = [of(rows) for rows in plans.values()]
    return [in_words(value) if value else "-" for value in (*values, sum(values))]


def _hours(plans: Plans, in_words: InWords) -> list[tuple[str, ...]]:
    parts = dict.fromkeys(row.part for rows in plans.values() for row in rows if row.seconds)

    def line(name: str, *parts: str) -> tuple[str, ...]:
        most = max((row.estimate.gpu_gib or 0.0 for rows in plans.values() for row in rows if row.part in parts),
                   default=0.0)
        hours = _columns(plans, lambda rows: sum(row.seconds for row in rows if row.part in parts), in_words)
        return (name, *hours, gib(most) if most else "")

    days = _columns(plans, lambda rows: sum(row.seconds for row in rows), lambda seconds: f"{seconds / 86400:.1f}")
    return [("GPU hours", *plans, "all", "GPU memory"), *(line(part, part) for part in parts), line("all", *parts),
            ("days on one GPU", *days, "")]


def _purposes(plans: Plans, in_words: InWords) -> list[tuple[str, ...]]:
    found = [seconds_by_purpose(rows) for rows in plans.values()]
    order = [*dict.fromkeys((*PURPOSES.values(), VALIDATIONS, EVALUATION)), OWN]
    return [("of these", *plans, "all"), *(
        (purpose, *_columns(plans, lambda rows, purpose=purpose: seconds_by_purpose(rows)[purpose], in_words))
        for purpose in order if any(each.get(purpose) for each in found))]


def _methods(plans: Plans, in_words: InWords) -> list[tuple[str, ...]]:
    titles = dict.fromkeys(title for rows in plans.values() for title, _, _ in subsets(rows))

    def taken(place: int, title: str) -> list[str]:
        return _columns(plans, lambda rows: next((each[place] for each in subsets(rows) if each[0] == title), 0.0),
                        in_words)

    return [("one method alone (with imported experts)", *plans, "all"), *((title, *(
        f"{alone} ({imported})" for alone, imported in zip(taken(1, title), taken(2, title), strict=True)))
        for title in titles)]


def _sizes(plans: Plans, size_in_words: InWords) -> list[tuple[str, ...]]:
    def most(rows: Sequence["Priced"], name: str) -> float:
        return max((getattr(row.estimate, name) or 0.0 for row in rows), default=0.0)

    def line(name: str, shown: InWords, of: Callable[[Sequence["Priced"]], float]) -> tuple[str, ...]:
        together = [row for rows in plans.values() for row in rows]
        return (name, *(shown(value) if value else "not known" for value in map(of, (*plans.values(), together))))

    return [("disk and memory", *plans, "all"),
            line("outputs", size_in_words, written),
            line("with DVC's cache, and experts being put together", size_in_words, disk),
            line("GPU memory", gib, lambda rows: most(rows, "gpu_gib")),
            line("memory", gib, lambda rows: most(rows, "memory_gib"))]


def gib(value: float) -> str:
    """Return GiB in words."""
    return f"{value:.0f} GiB"


def written(rows: Iterable["Priced"]) -> float:
    """Return the bytes of the large outputs."""
    return sum(row.output_bytes or 0 for row in rows)


def assembled(rows: Iterable["Priced"]) -> float:
    """Return the bytes of the largest experts, which are on the disk once more while they are put together."""
    return max((row.output_bytes or 0 for row in rows if row.stage.module in ("experts", "encoder-experts")), default=0)


def disk(rows: Sequence["Priced"]) -> float:
    """Return the bytes that a run needs: outputs, DVC's copy of them, and experts while they are assembled."""
    return 2 * written(rows) + assembled(rows)
