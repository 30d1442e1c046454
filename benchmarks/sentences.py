"""How well a language model writes plans: graded sentences against one of your services.

    python benchmarks/sentences.py --config FOLDER --service NAME [--model MODEL]
        [--repeat 1] [--limit N] [--dialect prose] [--temperature 0.3] [--out FOLDER]

--config is the folder with your services.yaml; the server must be up and awake. The cast is the
shipped one, whatever yours is, so that figures of different people compare. Sentences are asked one
after another, each `--repeat` times with seeds 0, 1, ... The interpreter needs what ComfyUI's has
once this pack is installed (pydantic, pyyaml, aiohttp).

Written to --out (default: build/sentences): NAME.md, a table of slots with how often each was
right and every plan with something wrong, and NAME.json, all plans.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[1]
sys.path.append(str(PACK))

from animation_studio.control.poses import PoseLibrary  # noqa: E402
from animation_studio.errors import ServiceError, StudioError  # noqa: E402
from animation_studio.llm.chat import ChatClient  # noqa: E402
from animation_studio.llm.messages import Chat  # noqa: E402
from animation_studio.llm.plan import Plan  # noqa: E402
from animation_studio.llm.vocabulary import vocabulary_of  # noqa: E402
from animation_studio.llm.writer import Brief, write_plan  # noqa: E402
from animation_studio.registry import Registry, load_registry  # noqa: E402
from benchmarks.graded import GradedSentence, grade, load_sentences, score  # noqa: E402

CONFIGS = PACK / "configs"


@dataclass(frozen=True)
class Outcome:
    """What came of one sentence: a plan with its grades, or why there is none.

    `first_try` says whether the model's first answer was a plan. Tokens are of all its answers,
    None where the server does not count; seconds are by the wall.
    """

    sentence: str
    seed: int
    grades: dict[str, bool]
    seconds: float
    plan: Plan | None = None
    first_try: bool = False
    enforced: bool = True  # as far as is known: a failure does not say
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    problem: str = ""

    @property
    def wrong(self) -> list[str]:
        """The slots that are not right."""
        return [slot for slot, right in self.grades.items() if not right]


@dataclass(frozen=True)
class Figures:
    """All outcomes of one model, with where they come from."""

    service: str
    kind: str
    model: str
    date: str
    dialect: str
    temperature: float
    outcomes: list[Outcome] = field(default_factory=list)


def main() -> None:
    """Ask, grade and write."""
    options = _options()
    try:
        figures = asyncio.run(measure(options))
    except StudioError as error:
        sys.exit(f"{error}")
    name = re.sub(r"[^\w.-]+", "_", f"{figures.service}-{figures.model}")
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(figures)
    (options.out / f"{name}.md").write_text(text, encoding="utf-8")
    document = json.dumps(as_data(figures), ensure_ascii=False, indent=1)
    (options.out / f"{name}.json").write_text(document, encoding="utf-8")
    print(text)
    print(f"written to {options.out / name}.md and .json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, help="folder with services.yaml")
    parser.add_argument("--service", required=True, help="a key of services.yaml")
    parser.add_argument("--model", help="the model to ask for (default: the service's)")
    parser.add_argument("--repeat", type=int, default=1, help="seeds for each sentence")
    parser.add_argument("--limit", type=int, help="only the first N sentences")
    parser.add_argument("--dialect", choices=("prose", "tags"), default="prose")
    parser.add_argument("--temperature", type=float, default=Brief.temperature)
    parser.add_argument("--out", type=Path, default=PACK / "build" / "sentences")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> Figures:
    """Ask for every plan. Raises StudioError for a service that is unknown or does not answer."""
    entry = load_registry([CONFIGS, options.config]).service(options.service)
    if options.model:
        entry = entry.model_copy(update={"model": options.model})
    chat = ChatClient(options.service, entry)
    figures = Figures(
        service=options.service,
        kind=entry.kind,
        model=await chat.model(),
        date=time.strftime("%Y-%m-%d"),
        dialect=options.dialect,
        temperature=options.temperature,
    )
    graded = load_sentences()[: options.limit]
    brief = brief_of_shipped(options.dialect, options.temperature)
    for seed in range(options.repeat):
        for one in graded:
            outcome = await ask(chat, brief, one, seed)
            figures.outcomes.append(outcome)
            said = ", ".join(outcome.wrong) or "all right"
            print(f"{outcome.seconds:6.1f} s  {one.sentence[:60]:<60}  {said}", file=sys.stderr)
    return figures


def brief_of_shipped(dialect: str, temperature: float) -> Brief:
    """Return a brief for the shipped cast, without a sentence."""
    registry: Registry = load_registry([CONFIGS])
    vocabulary = vocabulary_of(registry, PoseLibrary([CONFIGS / "poses"]).names())
    return Brief("", registry, vocabulary, dialect=dialect, temperature=temperature)


async def ask(chat: Chat, brief: Brief, one: GradedSentence, seed: int) -> Outcome:
    """Return what comes of one sentence; a ServiceError is an outcome too."""
    start = time.perf_counter()
    try:
        written = await write_plan(chat, replace(brief, sentence=one.sentence, seed=seed))
    except ServiceError as error:
        seconds = time.perf_counter() - start
        return Outcome(one.sentence, seed, grade(None, one.expect), seconds, problem=str(error))
    return Outcome(
        sentence=one.sentence,
        seed=seed,
        grades=grade(written.plan, one.expect),
        # Without finding out, at the first question, what the server can do.
        seconds=written.seconds,
        plan=written.plan,
        first_try=not written.repaired,
        enforced=written.enforced,
        prompt_tokens=written.prompt_tokens,
        completion_tokens=written.completion_tokens,
    )


def table(figures: Figures) -> str:
    """Return the figures as markdown."""
    outcomes = figures.outcomes
    sums = score(one.grades for one in outcomes)
    wrong = [f"- {_told(one)}" for one in outcomes if one.wrong]
    lines = [
        _heading(figures),
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in _summary(outcomes).items()),
        "",
        "| slot | right |",
        "| --- | --- |",
        *(f"| {slot} | {_share(*of)} |" for slot, of in sums.items()),
        *(["", "Wrong:", "", *wrong] if wrong else []),
    ]
    return "\n".join(lines) + "\n"


def _heading(figures: Figures) -> str:
    outcomes = figures.outcomes
    enforced = all(one.enforced for one in outcomes)
    parts = [
        f"{figures.model} ({figures.kind}, service {figures.service})",
        figures.date,
        figures.dialect,
        f"temperature {figures.temperature:g}",
        f"schema {'enforced by the server' if enforced else 'in the prompt only'}",
        f"{len(outcomes)} plans of {len({one.sentence for one in outcomes})} sentences",
    ]
    return ", ".join(parts)


def _summary(outcomes: Sequence[Outcome]) -> dict[str, str]:
    plans = [one for one in outcomes if one.plan is not None]
    every = len(outcomes)
    slots = [right for one in outcomes for right in one.grades.values()]
    return {
        "slots right": _share(sum(slots), len(slots)),
        "plans with every slot right": _share(sum(not one.wrong for one in outcomes), every),
        "plans at the first try": _share(sum(one.first_try for one in plans), every),
        "after one repair": _share(sum(not one.first_try for one in plans), every),
        "not at all": _share(every - len(plans), every),
        "tokens of the prompt, median": _median([one.prompt_tokens for one in plans]),
        "tokens written, median": _median([one.completion_tokens for one in plans]),
        "seconds, median": _median([one.seconds for one in plans], 1),
        "seconds, 9 of 10 under": _under([one.seconds for one in plans]),
    }


def as_data(figures: Figures) -> dict[str, Any]:
    """Return the figures as JSON's types."""
    data = asdict(figures)
    for outcome, one in zip(data["outcomes"], figures.outcomes, strict=True):
        outcome["plan"] = one.plan.model_dump(mode="json") if one.plan else None
    return data


def _told(one: Outcome) -> str:
    said = ", ".join(_slot_as_said(one.plan, slot) for slot in one.wrong) if one.plan else "no plan"
    problem = f" ({' '.join(one.problem.split())[:300]})" if one.problem else ""
    return f"{one.sentence} (seed {one.seed}): {said}{problem}"


def _slot_as_said(plan: Plan, slot: str) -> str:
    """The slot with what the plan has there, where that is one name or a few."""
    value = plan.character if slot == "main" else getattr(plan, slot, None)
    if slot == "speakers":
        value = [line.character for line in plan.lines]
    if slot in ("action", "setting", "light", "camera", "avoid", "spoken", "never"):
        return slot
    return (
        f"{slot} {', '.join(value) or 'nobody'}" if isinstance(value, list) else f"{slot} {value}"
    )


def _share(right: int, of: int) -> str:
    return f"{right} of {of} ({right / of:.0%})" if of else "0"


def _median(values: Sequence[float | None], digits: int = 0) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):,.{digits}f}" if known else "not told"


def _under(seconds: Sequence[float]) -> str:
    """What nine of ten stay within: the smallest of which that is true."""
    if not seconds:
        return "not told"
    return f"{sorted(seconds)[math.ceil(len(seconds) * 0.9) - 1]:,.1f}"


if __name__ == "__main__":
    main()
