"""Whatever a plan says, the loader's prompt has every trigger word, and no syntax but ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.errors import ConfigError
from animation_studio.llm.assembly import (
    MAX_WORDS,
    SceneText,
    look_request,
    missing_of,
    scene_of,
)
from animation_studio.llm.literal import literal_pieces
from animation_studio.llm.plan import Plan
from animation_studio.llm.vocabulary import vocabulary_of
from animation_studio.registry import look_prompts, normalised, resolve_choices
from animation_studio.registry.prompts import new_pieces, split_pieces
from tests.support.casts import NASTY_CAST, SHIPPED_CAST, cast

SHIPPED = cast(SHIPPED_CAST)
NASTY = cast(NASTY_CAST)
# Everything that means something to some parser, and words that mean somebody.
SYNTAX_WORDS = r"""
( ) (( )) :1.3 :1.3) (a:1.2) \ \( \) , ; { } | {a|b} [ ] __ _ __wild__ : :: . .. // /* */ ! ~ < >
embedding: EMBEDDING: embed ding: <lora:a:0.8> <l> BREAK AND (BREAK) ADDCOMM no without a an the The
luca giulia Giulia_Marcovaldo (luca) Red_Hair run lcp sword,shield x é 16:9 🌊 海灘
"""
INVISIBLE = [
    "\uff1b",
    "\uff0c",
    "\uff08",
    "\uff09",
    "\u200b",
    "\0",
    "\1",
    "\n",
    "\t",
    "\u0130",
    " ",
]
HOSTILE = st.lists(st.sampled_from([*SYNTAX_WORDS.split(), *INVISIBLE]), max_size=12).map("".join)
TEXT = st.one_of(HOSTILE, st.text(max_size=40))
TEXTS = st.lists(TEXT, max_size=3)
DIALECTS = st.sampled_from(["prose", "tags"])


@st.composite
def plans(draw, registry):
    known = vocabulary_of(registry, ["running"])
    one_of = {
        kind: draw(st.sampled_from([*known.of(kind), "none"]))
        for kind in ("background", "style", "expression")
    }
    data = {
        **one_of,
        "characters": draw(st.lists(st.sampled_from(known.of("character")), max_size=4)),
        "others": draw(st.lists(TEXT, max_size=2)),
        "parts": draw(
            st.fixed_dictionaries(
                dict.fromkeys(("action", "setting", "light", "camera", "avoid"), TEXTS)
            )
        ),
    }
    for name in ("action", "location", "time", "light", "camera", "composition"):
        data[name] = draw(TEXT)
    return Plan.model_validate(data, context=known)


ANY = st.sampled_from([SHIPPED, NASTY]).flatmap(lambda one: st.tuples(st.just(one), plans(one)))


def positive(registry, plan: Plan, made: SceneText) -> str:
    choices = resolve_choices(registry, look_request(plan, made.scene, made.negative))
    return look_prompts(choices, made.scene, made.negative).positive


def names_only(plan: Plan) -> Plan:
    kept = ("characters", "background", "style", "expression")
    return Plan(**{name: getattr(plan, name) for name in kept})


def prompts(registry, plan: Plan, dialect) -> tuple[str, str]:
    """The prompt of a plan, and that of one with the same names and no texts."""
    bare = names_only(plan)
    return (
        positive(registry, plan, scene_of(plan, registry, dialect)),
        positive(registry, bare, scene_of(bare, registry, dialect)),
    )


def loose(prompt: str) -> str:
    """The parentheses that are not text."""
    return "".join(re.findall(r"[()]", prompt.replace("\\(", "").replace("\\)", "")))


@given(ANY, DIALECTS)
def test_every_parenthesis_that_is_no_text_is_the_registrys(clip, both, dialect):
    prompt, bare = prompts(*both, dialect)
    assert loose(prompt) == loose(bare)
    level = 0
    for character in clip.escape_important(prompt):
        level += {"(": 1, ")": -1}.get(character, 0)
        assert level >= 0
    assert level == 0


@given(ANY, DIALECTS)
def test_every_weight_is_the_registrys(read, both, dialect):
    registry, plan = both
    prompt, bare = prompts(registry, plan, dialect)
    weighted = [one for one in read(prompt) if one[1] != 1.0]
    assert weighted == [one for one in read(bare) if one[1] != 1.0]
    negative = scene_of(plan, registry, dialect).negative
    assert all(weight == 1.0 for _, weight in read(negative))


@given(plans(SHIPPED), DIALECTS)
def test_every_trigger_word_is_there_verbatim_and_once(plan, dialect):
    made = scene_of(plan, SHIPPED, dialect)
    pieces = split_pieces(positive(SHIPPED, plan, made))
    chosen = [SHIPPED.character(key).entry for key in plan.characters]
    chosen += [
        SHIPPED.entry(kind, getattr(plan, kind))
        for kind in ("background", "style", "expression")
        if getattr(plan, kind) != "none"
    ]
    for word in {word for entry in chosen for word in entry.trigger_words}:
        assert pieces.count(word) == 1
        assert [normalised(piece) for piece in pieces].count(normalised(word)) == 1


@given(plans(NASTY), DIALECTS)
def test_odd_trigger_words_are_there_too(plan, dialect):
    made = scene_of(plan, NASTY, dialect)
    assert missing_of(plan, NASTY, made.scene, made.negative) == []


@given(ANY, DIALECTS)
def test_the_loader_takes_the_scene_as_it_stands(both, dialect):
    registry, plan = both
    made = scene_of(plan, registry, dialect)
    assert f", {made.scene}, " in f", {positive(registry, plan, made)}, " or not made.scene
    choices = resolve_choices(registry, look_request(plan))
    negative = look_prompts(choices, "", made.negative).negative
    assert f", {negative}".endswith(f", {made.negative}") or not made.negative


def own_pieces(registry, plan: Plan, made: SceneText) -> list[str]:
    """The pieces of the scene that are the plan's."""
    bare = names_only(plan)
    return new_pieces(positive(registry, bare, scene_of(bare, registry, "prose")), made.scene)


@given(ANY, DIALECTS)
def test_no_syntax_of_others_survives(both, dialect):
    registry, plan = both
    made = scene_of(plan, registry, dialect)
    for piece in [*own_pieces(registry, plan, made), *split_pieces(made.negative)]:
        assert "embedding:" not in piece.casefold()
        assert not re.search(r"[{}\[\]<>|\n]|__|//|/\*|\\(?![()])", piece)
        assert piece not in ("BREAK", "AND")
        assert any(letter.isalnum() for letter in piece)


@given(ANY, DIALECTS)
def test_nobody_comes_in_who_is_not_in_the_plan(both, dialect):
    registry, plan = both
    made = scene_of(plan, registry, dialect)
    pieces = {normalised(piece) for piece in own_pieces(registry, plan, made)}
    for key, character in registry.characters.items():
        if key not in plan.characters:
            assert not {key, normalised(character.name)} & pieces


@given(TEXT, DIALECTS, st.booleans())
def test_the_pieces_of_a_piece_are_itself(text, dialect, negative):
    pieces = literal_pieces(text, dialect, negative=negative)
    for piece in pieces:
        assert literal_pieces(piece, dialect, negative=negative) == [piece]
    assert literal_pieces(", ".join(pieces), dialect, negative=negative) == pieces


# -- single rules


@pytest.mark.parametrize(
    ("text", "prose", "tags"),
    [
        ("a boy running.", ["a boy running"], ["boy running"]),
        ("The Boy, AN apple; red_hair", ["The Boy", "AN apple", "red_hair"], 0),
        ("(dramatic light:1.4)", ["dramatic light"], 0),
        ("dramatic light:1.4", ["dramatic light"], 0),
        ("((soft, warm:1.2) light:.9)", ["soft", "warm light"], 0),
        ("waves (blue) at dusk", [r"waves \(blue\) at dusk"], 0),
        (r"waves \(blue\)", [r"waves \(blue\)"], 0),
        ("waves (blue", ["waves blue"], 0),
        ("a smile :) and tears :(", ["a smile : and tears :"], ["smile : and tears :"]),
        ("ends with \\", ["ends with"], 0),
        ("16:9, f/1.8, 12:30", ["16:9", "f/1.8", "12:30"], 0),
        ("embedding:evil", ["embedding evil"], 0),
        ("an Embedding : : evil", ["an Embedding evil"], ["embedding evil"]),
        ("sea <lora:evil:1> side", ["sea side"], 0),
        ("{a|b} sky", ["a b sky"], 0),
        ("__colour__ sky", ["colour sky"], 0),
        ("sky // and all that follows", ["sky and all that follows"], 0),
        ("BREAK, (AND:1.0), break of dawn", ["break of dawn"], 0),
        ("海边\uff0c日落、海浪\uff1b", ["海边", "日落", "海浪"], 0),
        ("...,:), ,!!", [], []),
        ("embed\u200bding:evil", ["embedding evil"], 0),
        ("two\nlines", ["two", "lines"], 0),
    ],
)
def test_literal_text(text, prose, tags):
    assert literal_pieces(text, "prose") == prose
    expected = [re.sub("^(the|an?) ", "", p.lower().replace("_", " ")) for p in prose]
    assert literal_pieces(text, "tags") == (expected if tags == 0 else tags)


def test_a_negative_piece_names_the_thing():
    text = "no hat, Without any people, nobody, no no text"
    assert literal_pieces(text, "prose", negative=True) == ["hat", "any people", "nobody", "text"]


def plan(**fields) -> Plan:
    return Plan.model_validate(fields, context=vocabulary_of(SHIPPED, ["running"]))


def test_the_order_is_fixed():
    made = scene_of(
        plan(
            characters=["luca", "alberto"],
            others=["old fisherman"],
            background="portorosso",
            style="pixar_3d",
            expression="excited",
            parts={
                "camera": ["low angle"],
                "light": ["golden hour"],
                "setting": ["on a pier", "Portorosso"],
                "action": ["racing each other", "Brown Hair", "wide_open_smile"],
                "avoid": ["no bicycle", "blurry"],
            },
        ),
        SHIPPED,
        "prose",
    )
    assert made.scene == (
        "racing each other, alberto, italian boy, curly hair, old fisherman, on a pier, "
        "golden hour, low angle"
    )
    assert made.negative == "bicycle"
    assert made.dropped == []
    (warning,) = made.warnings
    assert "'alberto'" in warning
    assert "'luca'" in warning
    assert "LoRA" in warning


def test_without_parts_the_slots_speak():
    made = scene_of(
        plan(
            action="A storm rises.",
            location="a lighthouse",
            time="night",
            light="lightning",
            camera="wide shot",
            composition="lighthouse on the left",
        ),
        SHIPPED,
        "tags",
    )
    assert made == SceneText(
        "storm rises, lighthouse, night, lightning, wide shot, lighthouse on the left", ""
    )


def test_an_empty_plan_is_an_empty_scene():
    assert scene_of(Plan(), SHIPPED, "prose") == SceneText("", "")


def test_a_character_who_is_not_in_the_plan_is_left_out_by_name_only():
    made = scene_of(
        plan(
            characters=["luca"],
            parts={"action": ["giulia", "(Giulia Marcovaldo:1.3)", "red hair", "beside Giulia"]},
        ),
        SHIPPED,
        "prose",
    )
    assert made.scene == "red hair, beside Giulia"
    assert made.dropped == ["giulia", "Giulia Marcovaldo"]
    assert len(made.warnings) == 3
    assert all("'giulia'" in warning for warning in made.warnings)
    assert "beside Giulia" in made.warnings[-1]


@pytest.mark.parametrize(
    ("piece", "dropped"),
    [
        ("giulia red hair freckles girl", True),
        ("Giulia's freckles: (RED_HAIR:1.3)", True),
        ("a girl like Giulia Marcovaldo with freckles", True),
        ("red hair and freckles", False),
        ("giulia girl", False),
        ("giuliana with red hair", False),
        ("giulia with bored hair", False),
        ("alberto and a boy", False),  # Luca is a boy too, and he is there
        ("alberto, curly hair", True),
        ("alberto the italian boy", True),
    ],
)
@pytest.mark.parametrize("group", ["action", "setting", "others"])
def test_a_piece_that_describes_who_is_not_in_the_plan_is_left_out(piece, dropped, group):
    texts = {"others": [piece]} if group == "others" else {"parts": {group: [piece]}}
    made = scene_of(plan(characters=["luca"], **texts), SHIPPED, "prose")
    names = "giulia" if "giulia" in normalised(piece) else "alberto"
    assert bool(made.dropped) == dropped
    assert (names in normalised(made.scene)) == (not dropped and names in normalised(piece))
    named = f" {names} " in f" {normalised(piece)} " or dropped
    assert [one for one in made.warnings if f"'{names}'" in one] == made.warnings
    assert bool(made.warnings) == named
    present = scene_of(plan(characters=["luca", names], **texts), SHIPPED, "prose")
    assert present.dropped == []


def test_what_the_look_wants_is_not_avoided():
    made = scene_of(
        plan(
            characters=["luca", "giulia"],
            parts={"action": ["smiling"], "avoid": ["no boy", "Red Hair", "smiling", "rain"]},
        ),
        SHIPPED,
        "prose",
    )
    assert made.negative == "rain"
    assert made.dropped == ["boy", "Red Hair", "smiling"]


def test_a_scene_that_is_too_long_loses_camera_then_light_then_setting():
    def phrases(name, count):
        return [f"{name} {n} " + "word " * 8 for n in range(count)]

    parts = {"action": phrases("a", 4), "setting": phrases("s", 2)}
    parts |= {"light": phrases("l", 2), "camera": phrases("c", 2)}
    made = scene_of(plan(parts=parts), SHIPPED, "prose")
    assert [piece[:3] for piece in made.dropped] == ["c 1", "c 0", "l 1", "l 0"]
    assert len(re.findall(r"\w+", made.scene)) == MAX_WORDS
    assert str(MAX_WORDS) in made.warnings[0]

    crowded = scene_of(
        plan(others=["a man in blue"], parts={**parts, "action": ["word " * 20] * 6}),
        SHIPPED,
        "prose",
    )
    assert crowded.dropped[-1][:3] == "s 0" or "a man in blue" in crowded.scene


def test_chinese_letters_count_as_words():
    made = scene_of(plan(parts={"action": ["海" * 70], "camera": ["low angle"]}), SHIPPED, "prose")
    assert made.dropped == ["low angle"]


def test_a_name_that_the_registry_lost_is_an_error():
    with pytest.raises(ConfigError, match="atlantis"):
        scene_of(Plan(background="atlantis"), SHIPPED, "prose")
    with pytest.raises(ConfigError, match="ercole"):
        scene_of(Plan(characters=["luca", "ercole"]), SHIPPED, "prose")
