"""How often is a certificate wrong? Exact for one test, simulated for whole searches: python benchmarks/certificate.py

A search tries 30 candidates of which every one is worse than the original by exactly δ (one point), so each
certificate is an error. Candidates fail on the same hard items, families of them even more alike. Two searches:

    plain     all 30 are scored on the select split
    adaptive  a candidate is varied from the best one so far; as batches come in, the betting test kills it or, in
              its mirror image, is content with what it has seen

Both order the finalists on the select split, safest first, and test them on the certify split by the fixed sequence.
Finished searches are kept in benchmarks/work/certificate.jsonl; a run that was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

import pages
from trimtab.core.files import make_folder
from trimtab.stats.noninferiority import Pairs, exact_error, fewest_items, prove, tango_z
from trimtab.stats.sequence import fixed_sequence, safest_first
from trimtab.stats.sequential import Evidence, watch

JOURNAL = pages.WORK / "certificate.jsonl"
DELTA = 0.01
MOST_ERROR, ITEMS = 0.051, (300, 1000, 5000)
MOST_SHARE = 0.06
CANDIDATES = 30
DISCORDANCES = (0.01, 0.02, 0.05, 0.10)
BATCH = 100
Gains = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One kind of search, and how many items its splits hold."""

    search: str
    select: int
    certify: int

    @property
    def name(self) -> str:
        return f"{self.search}, {self.select:,} to select and {self.certify:,} to certify"


SETTINGS = tuple(
    Setting(search=search, select=select, certify=certify)
    for search in ("plain", "adaptive")
    for select, certify in ((100, 300), (325, 1000), (1000, 3000))
)


def type_one_table() -> list[dict[str, float]]:
    """Return the exact risk of one test at the boundary, also where the test is known to be at its worst."""
    sizes = (268, fewest_items(DELTA), 300, 400, 500, 650, 1000, 3000, 5000, 10_000)
    return [
        {
            "items": n,
            "psi": psi,
            "error": exact_error(n, psi, DELTA),
            "score_only": exact_error(n, psi, DELTA, score_only=True),
        }
        for n in sizes
        for psi in DISCORDANCES
    ]


class Candidates:
    """Draws candidates whose gain on an item is −1, 0 or 1 with a mean of exactly −δ.

    A latent normal number per item and candidate is cut at the quantiles of its discordance. It mixes the item's own
    hardness (45 %), what a family of candidates shares (35 %), and chance, so that it stays exactly normal.
    """

    def __init__(self, items: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self._hard = rng.standard_normal(items)
        self._families = rng.standard_normal((5, items))

    def draw(self) -> NDArray[np.float64]:
        """Return the latent numbers of a fresh candidate."""
        family = self._families[self._rng.integers(len(self._families))]
        own = self._rng.standard_normal(self._hard.size)
        return np.sqrt(0.45) * self._hard + np.sqrt(0.35) * family + np.sqrt(0.20) * own

    def vary(self, parent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the latent numbers of a candidate made from another one."""
        return np.sqrt(0.85) * parent + np.sqrt(0.15) * self._rng.standard_normal(parent.size)

    def gains(self, latent: NDArray[np.float64]) -> Gains:
        """Return D of each item at a discordance drawn for the candidate."""
        psi = self._rng.choice(DISCORDANCES)
        loss, gain = norm.ppf((psi + DELTA) / 2), norm.isf((psi - DELTA) / 2)
        return (latent > gain).astype(np.int8) - (latent < loss).astype(np.int8)


def score(gains: Gains) -> float:
    """Return how safe a candidate looks on some items."""
    return float(tango_z(gains.size, (gains > 0).sum(), (gains < 0).sum(), -DELTA))


def proven(gains: Gains) -> bool:
    """Return the verdict of the certificate."""
    return prove(Pairs(items=gains.size, better=int((gains > 0).sum()), worse=int((gains < 0).sum())), DELTA).proven


def plain_search(made: Candidates, select: int) -> list[tuple[Gains, int]]:
    """Return all candidates, each with the number of items that it was judged by."""
    return [(made.gains(made.draw()), select) for _ in range(CANDIDATES)]


def adaptive_search(made: Candidates, select: int) -> list[tuple[Gains, int]]:
    """Return the candidates that the betting test let live; most were varied from the best one before them."""
    living: list[tuple[Gains, int]] = []
    best: tuple[float, NDArray[np.float64]] | None = None
    for number in range(CANDIDATES):
        latent = made.draw() if best is None or number % 5 == 0 else made.vary(best[1])
        gains, against, defence = made.gains(latent), Evidence(delta=DELTA), Evidence(delta=-DELTA)
        for seen in [*range(BATCH, select, BATCH), select]:
            batch = gains[against.items : seen]
            against, defence = watch(against, batch), watch(defence, -batch)
            if against.dead or defence.dead:
                break
        if not against.dead:
            living.append((gains, seen))
            if best is None or score(gains[:seen]) > best[0]:
                best = score(gains[:seen]), latent
    return living


def search(setting: Setting, seed: int) -> dict[str, Any]:
    """Run one whole search; return how many finalists it had and how many it certified, each one wrongly."""
    made = Candidates(setting.select + setting.certify, np.random.default_rng([seed, SETTINGS.index(setting)]))
    ways = {"plain": plain_search, "adaptive": adaptive_search}
    found = ways[setting.search](made, setting.select)
    order = safest_first([score(gains[:seen]) for gains, seen in found])
    certified = sum(fixed_sequence((proven(found[index][0][setting.select :]) for index in order), bool))
    return {"setting": setting.name, "seed": seed, "finalists": len(found), "certified": certified}


def journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the searches that were finished before; a line that a kill cut off is done again."""
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def run_searches(number: int, path: Path) -> list[dict[str, Any]]:
    """Run what is missing of the searches of every setting, keeping each as soon as it is done.

    Searches of other code, of the statistics or of this script, are missing.
    """
    code = pages.sources(pages.TRIMTAB / "stats", Path(__file__))
    wanted = {(setting.name, seed) for setting in SETTINGS for seed in range(number)}
    done = {(row["setting"], row["seed"]): row for row in journal(path) if row.get("code") == code}
    make_folder(path.parent)
    with path.open("a", buffering=1) as file:
        file.write("\n" if path.stat().st_size and not path.read_bytes().endswith(b"\n") else "")
        for setting in SETTINGS:
            for seed in range(number):
                if (setting.name, seed) not in done:
                    done[setting.name, seed] = row = {**search(setting, seed), "code": code}
                    file.write(json.dumps(row) + "\n")
            print(f"{setting.name}: done", flush=True)
    return [row for key, row in done.items() if key in wanted]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each setting the share of searches that ended with a certificate, with its exact 95 % interval."""
    found = []
    for setting in SETTINGS:
        own = [row for row in rows if row["setting"] == setting.name]
        wrong = sum(row["certified"] > 0 for row in own)
        low, high = binomtest(wrong, len(own)).proportion_ci(0.95)
        finalists = float(np.mean([row["finalists"] for row in own]))
        found.append(
            {**asdict(setting), "searches": len(own), "finalists": finalists, "wrong": wrong}
            | {"share": wrong / len(own), "low": low, "high": high}
        )
    return found


def figures(table: Sequence[dict[str, float]], searches: Sequence[dict[str, Any]]) -> list[str]:
    """Return whether each figure was met, in words: the risk of one test, the share of whole searches."""
    risk = max(row["error"] for row in table if row["items"] in ITEMS)
    worst = max(searches, key=lambda found: found["share"])
    return [
        pages.kept(risk <= MOST_ERROR, f"the risk of one test on {', '.join(f'{n:,}' for n in ITEMS)} items: at most "
                   f"{100 * risk:.2f} % (allowed {100 * MOST_ERROR:g} %)"),
        pages.kept(worst["share"] <= MOST_SHARE, f"whole searches that end with a certificate: at most "
                   f"{100 * worst['share']:.2f} % of {worst['searches']:,} ({100 * worst['low']:.2f} to "
                   f"{100 * worst['high']:.2f} %), {worst['search']} on {worst['certify']:,} items (allowed "
                   f"{100 * MOST_SHARE:g} %)"),
    ]  # fmt: skip


def body(table: list[dict[str, float]], searches: list[dict[str, Any]]) -> list[str]:
    """Return the page."""
    by_size: dict[int, list[tuple[float, float]]] = {}
    for row in table:
        by_size.setdefault(int(row["items"]), []).append((row["error"], row["score_only"]))
    return [
        *figures(table, searches), "",
        "## One test", "",
        "Exact risk (%) of certifying a model that is worse by exactly δ = 1 point, by items and share ψ of items that "
        "only one of the two gets right. With ψ = δ no item gains. In brackets: Tango's score alone, without the exact "
        "p-value that we ask for as well.", "",
        "| items | " + " | ".join(f"ψ = {100 * psi:g} %" for psi in DISCORDANCES) + " |",
        "|---:|" + "---:|" * len(DISCORDANCES),
        *(
            f"| {n:,} | " + " | ".join(f"{100 * ours:.2f} ({100 * score:.2f})" for ours, score in errors) + " |"
            for n, errors in by_size.items()
        ), "",
        "## Whole searches", "",
        f"{CANDIDATES} candidates, each worse by exactly 1 point and failing on the same hard items; every certificate "
        "is an error.", "",
        "| search | select | certify | searches | finalists | with a certificate | 95 % interval |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {s['search']} | {s['select']:,} | {s['certify']:,} | {s['searches']:,} | {s['finalists']:.1f} | "
            f"{100 * s['share']:.2f} % | {100 * s['low']:.2f} to {100 * s['high']:.2f} % |"
            for s in searches
        ), "",
        "```sh", "python benchmarks/certificate.py", "```",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=2000, help="whole searches per setting")
    parser.add_argument("--journal", type=Path, default=JOURNAL, help="where finished searches are kept")
    parser.add_argument("--results", type=Path, default=pages.RESULTS, help="folder of the results")
    given = parser.parse_args()
    table = type_one_table()
    searches = summary(run_searches(given.searches, given.journal))
    results = {"delta": DELTA, "alpha": 0.05, "candidates": CANDIDATES, "exact": table, "searches": searches}
    pages.publish("certificate", "How often is a certificate wrong?", body(table, searches), results, given.results)


if __name__ == "__main__":
    main()
