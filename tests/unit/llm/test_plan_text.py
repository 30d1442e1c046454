"""Plans by hand: what is read, what is refused and with which words, and text that reads back."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.errors import PlanError
from animation_studio.llm.plan import Plan
from animation_studio.llm.plan_text import plan_as_text, plan_from_text
from animation_studio.llm.vocabulary import Vocabulary

KNOWN = Vocabulary(
    {
        "character": ("luca", "alberto", "giulia", "1984", "yes", "- a: #", "Ünï\tcode"),
        "background": ("portorosso", "~", "null"),
        "style": ("pixar_3d", "true"),
        "expression": ("happy", "sad", "3.14"),
        "pose": ("running", "16:9"),
        "control": ("openpose", "depth", "no"),
        "emotion": ("neutral", "excited", "sad"),
    },
    {"character": {"luca": "Luca Paguro"}},
)

FULL = """\
# a comment
intent: Luca runs on the beach
characters: [luca, Giulia]
others: old fisherman
action: "Luca runs: fast"
emotion: excited
expression: happy
location: the beach # not the town
background: portorosso
style: pixar_3d
time: 16:30
light:
camera: ~
controls:
  type: openpose
  pose: running
lines:
- character: Luca Paguro
  text: >
    Silenzio,
    Bruno!
parts:
  action: running, arms wide
  setting: [beach, small waves]
"""


def refused(text: str) -> list[str]:
    with pytest.raises(PlanError) as caught:
        plan_from_text(text, KNOWN)
    return str(caught.value).split("\n")


def test_a_plan_by_hand():
    plan = plan_from_text(FULL, KNOWN)
    assert plan.characters == ["luca", "giulia"]
    assert plan.others == ["old fisherman"]
    assert (plan.time, plan.light, plan.camera) == ("16:30", "", "")
    assert (plan.control, plan.pose) == ("openpose", "running")
    assert [(line.character, line.emotion, line.text) for line in plan.lines] == [
        ("luca", "neutral", "Silenzio, Bruno!")
    ]
    assert plan.parts.action == ["running, arms wide"]


@pytest.mark.parametrize(
    "text",
    [
        f"```yaml\n{FULL}```",
        f"\n  ```\n{FULL}\n```\n\nShall I change anything?",
        f"~~~yml\n{FULL}~~~",
        f"```\n{FULL}",
        f"\ufeff{FULL}",
        FULL.replace("\n", "\r\n"),
        f"---\n{FULL}...\n",
    ],
)
def test_text_as_people_paste_it(text):
    assert plan_from_text(text, KNOWN) == plan_from_text(FULL, KNOWN)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_as_any_program_writes_it(indent, ascii_only):
    data = {"characters": ["luca"], "action": "a/b 🌊 \\ \"x\"\t: 'y'", "lines": []}
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only).replace("/", "\\/")
    plan = plan_from_text(text, KNOWN)
    assert plan.characters == ["luca"]
    assert plan.action == "a/b 🌊 \\ \"x\" : 'y'"


@pytest.mark.parametrize("text", ["{}", "action:", "lines: []\nparts: {}", "background: none"])
def test_everything_may_be_left_out(text):
    assert plan_from_text(text, KNOWN) == Plan()


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff\n"])
def test_no_text_says_how_to_write_one(text):
    (line,) = refused(text)
    assert "there is no text" in line
    assert "characters" in line
    assert "parts" in line


# text, then the beginning of the line that must be said and words in it
WRONG = [
    ("characters: [luca]\naction: 1984\n", "line 2: action: ", ["number 1984", "in quotes"]),
    (
        "lines:\n- character: luca\n  text: yes\n",
        "line 3: lines.0.text: ",
        ["takes this for true", "in quotes"],
    ),
    ("background: no", "line 1: background: ", ["false", "in quotes"]),
    ("time: .nan", "line 1: time: ", ["nan", "in quotes"]),
    ("time: -.inf", "line 1: time: ", ["-inf", "in quotes"]),
    ("characters: 7", "line 1: characters: ", ["list"]),
    ("characters: [lucca]", "line 1: characters.0: ", ["'lucca'", "Did you mean 'luca'?"]),
    ("characters:\n- luca\n-\n", "line 3: characters.1: ", ["empty"]),
    ("characters: [luca, alberto, giulia, yes1, b]", "line 1: characters", ["4"]),
    ("emotion: furious", "line 1: emotion: ", ["neutral, excited, sad"]),
    ("\nexpresion: happy", "line 2: expresion: ", ["no such key", "'expression'"]),
    ("parts:\n  setings: x", "line 2: parts.setings: ", ["no such key", "'setting'", "avoid"]),
    ("lines:\n- charcter: luca", "line 2: lines.0.charcter: ", ["'character'", "emotion"]),
    ("lines:\n- text: hello", "line 2: lines.0.character: ", ["missing"]),
    ("controls: openpose", "line 1: controls.0: ", ["'openpose'", "mapping", "type"]),
    ("controls: [{type: openpose, pose: runing}]", "line 1: controls.0.pose: ", ["'running'"]),
    (
        "controls:\n- type: openpose\n- type: depth\n  pose: running",
        "line 4: controls.1.pose: ",
        ["a pose is for openpose", "'depth'", "Leave the pose out"],
    ),
    ("parts: run", "line 1: parts: ", ["'run'", "mapping", "action"]),
    ("action: [a, b]", "line 1: action: ", ["a list", "text"]),
    ("action: {a: b}", "line 1: action: ", ["a mapping", "text"]),
    (f"time: {'x' * 101}", "line 1: time: ", ["at most 100 characters"]),
    (f"parts:\n  light:\n  - {'x ' * 99}", "line 3: parts.light.0: ", ["at most 100"]),
    (f"others: [{'a, ' * 5}]", "line 1: others: ", ["at most 4"]),
    ("action: a\naction: b", "line 2: action: ", ["stands twice", "line 1", "line 2"]),
    ("parts:\n\taction: a", "line 2: ", ["tab", "spaces"]),
    ("action: 'a", "line 1: ", ["not valid YAML"]),
    ('{"action": "a", ', "line 1: ", ["not valid YAML"]),
    ("action: a: b", "line 1: ", ["not valid YAML"]),
    ("Luca runs on the beach", "line 1: ", ["mapping of keys"]),
    ("- luca\n- alberto", "line 1: ", ["mapping of keys"]),
    ("42", "line 1: ", ["mapping of keys"]),
    ("action: a\n---\naction: b", "line 2: ", ["not valid YAML", "single document"]),
    ("action: !!python/object:os.system x", "line 1: action: ", ["tag"]),
    ("action: a\0b", "line 1: ", ["U+0000"]),
    ("a: 1\naction: \ud800", "line 2: ", ["U+D800"]),
    ("x: *nobody", "line 1: ", ["undefined alias"]),
    ("? [a]\n: b", "line 1: ", ["plain word"]),
    (f"action: {'[' * 1000}", "line 1: ", ["levels"]),
    (f"```yaml\n\nemotion: [{'{' * 3}\n```", "line 3: ", ["not valid YAML"]),
    ("```\n```", "plan: ", ["no text"]),
]


@pytest.mark.parametrize(("text", "beginning", "words"), WRONG)
def test_what_is_wrong_is_said_with_its_line(text, beginning, words):
    lines = refused(text)
    assert any(
        line.startswith(beginning) and all(word in line for word in words) for line in lines
    ), lines
    assert all(len(line) < 400 for line in lines)
    assert "nput should" not in "".join(lines)


def test_everything_wrong_is_said_at_once_in_the_order_of_the_lines():
    lines = refused("characters: [lucca]\ntime: 1\nparts: {akshun: 5}\nlines: [{text: x}]\nfoo: 1")
    places = [re.match(r"line (\d): ([\w.]+): ", line) for line in lines]
    assert [(place[1], place[2]) for place in places if place] == [
        ("1", "characters.0"),
        ("2", "time"),
        ("3", "parts.akshun"),
        ("4", "lines.0.character"),
        ("5", "foo"),
    ]


def test_a_flood_is_refused_before_it_is_read():
    assert "5,242,880" in refused("a: " + "x" * (5 * 2**20 - 3))[0]


def test_aliases_that_multiply_are_refused():
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    lines = refused("l0: &l0 [a]\n" + "\n".join(levels))
    assert "100,000 values" in lines[0]


def test_of_many_problems_the_first_are_said():
    lines = refused("\n".join(f"key{n}: {n}" for n in range(500)))
    assert len(lines) == 13
    assert lines[-1] == "and 488 more"


# -- back to text

NASTY_LINES = """\
yes\n1984\n~\n- a\n# b\na: b\n'\n"\nnull\n16:9\n1e3\n0x1F\n=\n<<\n*a\n&a\n!b\n%c\n@d\n`e`\n{f}\n[g]
>\n|\n?\n-\n:\n,\n---\n...\n🌊 mare\n\ufeffx\n2026-11-21\n```\n海灘\nc #d\ne:\n\\n\n\\"""
UNSEEN = ["b\u200cc", "\u200d", "a\u202eb", "\u200b"]
NASTY = st.sampled_from([*NASTY_LINES.split("\n"), "a\u2028b", "line\nbreak", "\x85", *UNSEEN])
WORDS = st.one_of(NASTY, st.text(max_size=40))


def of(kind, *more):
    return st.sampled_from([*KNOWN.of(kind), *more])


def phrases(most=6):
    return st.lists(WORDS, max_size=most)


PLANS = st.fixed_dictionaries(
    {},
    optional={
        "intent": WORDS,
        "characters": st.lists(of("character"), max_size=4),
        "others": phrases(4),
        "action": WORDS,
        "emotion": of("emotion"),
        "expression": of("expression", "none"),
        "location": WORDS,
        "background": of("background", "none"),
        "style": of("style", "none"),
        "time": WORDS,
        "light": WORDS,
        "camera": WORDS,
        "composition": WORDS,
        "controls": st.lists(
            st.fixed_dictionaries(
                {"type": of("control")}, optional={"pose": of("pose"), "reason": WORDS}
            ),
            max_size=2,
        ),
        "lines": st.lists(
            st.fixed_dictionaries(
                {"character": of("character"), "text": WORDS}, optional={"emotion": of("emotion")}
            ),
            max_size=3,
        ),
        "reasoning": WORDS,
        "parts": st.fixed_dictionaries(
            {},
            optional={
                name: phrases() for name in ("action", "setting", "light", "camera", "avoid")
            },
        ),
    },
).map(lambda data: Plan.model_validate(data, context=KNOWN))


@given(PLANS)
def test_the_text_of_any_plan_reads_as_the_same_plan(plan):
    text = plan_as_text(plan)
    assert plan_from_text(text, KNOWN) == plan
    assert plan_as_text(plan_from_text(text, KNOWN)) == text
    assert plan_from_text(f"```yaml\n{text}```", KNOWN) == plan
    keys = [line.split(":")[0] for line in text.splitlines() if re.match(r"\w", line)]
    assert keys == [key for key in Plan.model_fields if key in keys]


def test_how_a_plan_looks_as_text():
    plan = plan_from_text(FULL, KNOWN)
    assert (
        plan_as_text(plan)
        == """\
intent: Luca runs on the beach
characters:
  - luca
  - giulia
others:
  - old fisherman
action: 'Luca runs: fast'
emotion: excited
expression: happy
location: the beach
background: portorosso
style: pixar_3d
time: '16:30'
controls:
  - type: openpose
    pose: running
lines:
  - character: luca
    text: Silenzio, Bruno!
parts:
  action:
    - running, arms wide
  setting:
    - beach
    - small waves
"""
    )
