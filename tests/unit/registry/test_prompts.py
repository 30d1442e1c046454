"""Prompts as ComfyUI reads them: its own parser, taken from its source, is the judge."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from animation_studio.registry import assemble_prompt, normalised
from animation_studio.registry.prompts import escape_trigger, missing_words, split_pieces


def plain_pieces(read, prompt: str) -> list[str]:
    """The words that reach the text encoder, piece by piece, as a child would compare them."""
    text = "".join(segment for segment, _ in read(prompt))
    text = unicodedata.normalize("NFKC", text).lower().replace("_", " ")
    return [" ".join(piece.split()) for piece in text.split(",") if piece.strip()]


# Everything that means something to a parser, and a little text between.
HOSTILE = st.text(alphabet="aBé1. _,()\\:\n\u0301\u200b\uff08", max_size=24)
ANY = st.one_of(HOSTILE, st.text(max_size=30))
ARGUMENTS = st.fixed_dictionaries(
    {
        "base": ANY,
        "character_words": st.lists(ANY, max_size=3),
        "before_scene": st.lists(ANY, max_size=3),
        "scene": ANY,
        "after_scene": st.lists(ANY, max_size=3),
    }
)
WORDS = st.sampled_from(
    ["luca", "brown hair", "green eyes", "caffè", "pixar style", "boy", "big ben", "3d animation"]
)


@given(ARGUMENTS)
def test_any_text_gives_a_prompt_whose_parentheses_match(clip, arguments):
    level = 0
    for character in clip.escape_important(assemble_prompt(**arguments)):
        level += {"(": 1, ")": -1}.get(character, 0)
        assert level >= 0
    assert level == 0


@given(ARGUMENTS)
def test_a_prompt_put_in_as_the_scene_again_adds_nothing(arguments):
    prompt = assemble_prompt(**arguments)
    assert assemble_prompt(**{**arguments, "scene": prompt}) == prompt
    assert assemble_prompt(scene=prompt) == prompt


@given(ARGUMENTS)
def test_every_trigger_word_is_in_the_prompt(arguments):
    words = [
        w for key in ("character_words", "before_scene", "after_scene") for w in arguments[key]
    ]
    assert missing_words(assemble_prompt(**arguments), words) == []


RESPELL: list[Callable[[str], str]] = [
    str.upper,
    str.title,
    lambda word: word.replace(" ", "_"),
    lambda word: f"\t{word.replace(' ', '   ')} ",
    lambda word: f"({word})",
    lambda word: f"(( {word} ))",
    lambda word: f"({word}:1.3)",
    lambda word: f"({word}: -2)",
    lambda word: f"({word.upper()}:1e-1)",
    lambda word: f"(({word}:.5):2)",
    lambda word: f"{word}:1.3",
    lambda word: f"({word}, sailing boat:1.2)",
    lambda word: f"(sailing boat, ({word}:1.1), {word})",
    lambda word: unicodedata.normalize("NFD", word),
    lambda word: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in word),
    lambda word: f"\ufeff{word[:2]}\u200b{word[2:]}",
    lambda word: word,
]
RESPELT = st.tuples(WORDS, st.sampled_from(RESPELL)).map(lambda pair: pair[1](pair[0]))
SCENES = st.lists(st.one_of(RESPELT, st.just("sailing boat")), max_size=6).map(",".join)


@given(
    base=st.lists(st.one_of(WORDS, RESPELT), max_size=3).map(", ".join),
    words=st.lists(WORDS, max_size=3, unique=True),
    before=st.lists(WORDS, max_size=2),
    scene=SCENES,
    after=st.lists(WORDS, max_size=2),
)
def test_each_trigger_word_reaches_the_encoder_once_however_the_scene_spells_it(
    read, base, words, before, scene, after
):
    # What a base prompt says twice within one group of its own is the user's to decide.
    assume("(sailing boat, (" not in base)
    prompt = assemble_prompt(
        base=base, character_words=words, before_scene=before, scene=scene, after_scene=after
    )
    pieces = plain_pieces(read, prompt.replace("\u200b", "").replace("\ufeff", ""))
    for word in {*words, *before, *after}:
        if f"{word}:1.3" in base.split(", "):
            continue  # there ComfyUI reads the colon as text, and the base prompt is verbatim
        assert pieces.count(word) == 1, prompt


UNIQUE = st.lists(WORDS, unique=True)


@given(st.data(), UNIQUE.filter(bool))
def test_the_order_is_fixed_and_the_base_prompt_verbatim(data, names):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(names)), min_size=4, max_size=4)))
    a, b, c, d = cuts
    lacking, base, before, scene, after = (
        names[:a], names[a:b], names[b:c], names[c:d], names[d:],
    )  # fmt: skip
    prompt = assemble_prompt(
        base=", ".join(base),
        character_words=data.draw(st.permutations(lacking + base).map(list))
        if not lacking
        else [*lacking, *base],
        before_scene=before,
        scene=" ,\n".join(scene),
        after_scene=after,
    )
    assert prompt == ", ".join(names)


def test_the_users_own_case():
    base = "luca, boy, (brown hair, green eyes:1.1), pixar style, cinematic lighting"
    prompt = assemble_prompt(
        base=base,
        character_words=["luca", "boy", "brown hair", "green eyes"],
        before_scene=["excited expression", "running"],
        scene="Luca running on the beach, (LUCA, Brown_Hair:1.4), running,"
        " (PORTOROSSO, sunset:1.2)",
        after_scene=["portorosso", "pixar style", "3d animation"],
    )
    assert prompt == (
        f"{base}, excited expression, running, Luca running on the beach, (sunset:1.2), "
        "portorosso, 3d animation"
    )


LITERAL = st.text(alphabet="ab :1()", min_size=1, max_size=12).map(lambda w: " ".join(w.split()))


@given(LITERAL)
def test_a_trigger_words_parentheses_are_text_of_weight_one(read, word):
    assume(word)
    assume(not (word.startswith("(") and word.endswith(")")))
    assert read(assemble_prompt(character_words=[word])) == [(word, 1.0)]


@given(LITERAL, st.sampled_from(["1.2", "0.05", ".5", "2", "-1.0", "1e1"]))
def test_a_weighted_trigger_word_has_its_weight_and_its_text(read, word, weight):
    assume(word.strip(" ():"))
    assume(not (word.startswith("(") and word.endswith(")")))
    assume(split_pieces(f"({word}:{weight})") == [f"({word}:{weight})"])
    assume(escape_trigger(word).count("\\") == word.count("(") * 2)
    depth = 0
    for character in word:
        depth += {"(": 1, ")": -1}.get(character, 0)
        assume(depth >= 0)
    assume(depth == 0)
    prompt = assemble_prompt(character_words=[f"({word}:{weight})"])
    assert read(prompt) == [(word, float(weight))]


@pytest.mark.parametrize(
    ("word", "prompt", "reading"),
    [
        ("luca (sea monster)", r"luca \(sea monster\)", [("luca (sea monster)", 1.0)]),
        (r"luca \(sea\)", r"luca \(sea\)", [("luca (sea)", 1.0)]),
        ("luca:1.2", "(luca:1.2)", [("luca", 1.2)]),
        ("luca (sea):1.2", r"(luca \(sea\):1.2)", [("luca (sea)", 1.2)]),
        ("(luca)", "(luca)", [("luca", 1.1)]),
        ("(a (b):1.5)", r"(a \(b\):1.5)", [("a (b)", 1.5)]),
        ("(a:1.2) and (b:1.3)", r"\(a:1.2\) and \(b:1.3\)", [("(a:1.2) and (b:1.3)", 1.0)]),
        ("aspect 16:9", "aspect 16:9", [("aspect 16:9", 1.0)]),
        ("embedding:luca", "embedding:luca", [("embedding:luca", 1.0)]),
        (":)", r":\)", [(":)", 1.0)]),
        ("(luca:nan)", "(luca:nan:1.1)", [("luca:nan", 1.1)]),
        ("(luca:inf)", "(luca:inf:1.1)", [("luca:inf", 1.1)]),
        ("(luca\\ )", "(luca\\:1.1)", [("luca\\", 1.1)]),
        ("red hair, freckles (many)", r"red hair, freckles \(many\)", None),
        ("a\nb", "a, b", None),
        ("foo (a, b)", r"foo \(a, b\)", [("foo (a, b)", 1.0)]),
        ("(a, b", r"\(a, b", [("(a, b", 1.0)]),
        ("", "", None),
        (" , ,, ", "", None),
    ],
)
def test_odd_trigger_words(read, word, prompt, reading):
    assert assemble_prompt(character_words=[word]) == prompt
    assert reading is None or read(prompt) == reading
    assert assemble_prompt(character_words=[word], scene=prompt) == prompt


def test_nested_emphasis_multiplies_as_comfyui_has_it(read):
    ((text, weight),) = read(assemble_prompt(character_words=["((luca))"]))
    assert text == "luca"
    assert weight == pytest.approx(1.1 * 1.1)


@pytest.mark.parametrize("text", ["(" * 50_000, "(" * 5_000 + "a" + ")" * 5_000, "((a," * 3_000])
def test_parentheses_too_deep_for_comfyui_become_text(read, text):
    prompt = assemble_prompt(scene=text, character_words=[text, "luca"])
    assert "\\(" in prompt
    assert prompt.endswith("luca")
    assert all(weight < 1.1**33 for _, weight in read(prompt))


@given(st.text(max_size=20))
def test_other_forms_of_a_text_are_the_same_piece(text):
    for form in ("NFC", "NFD"):
        assert normalised(unicodedata.normalize(form, text)) == normalised(text)


@pytest.mark.parametrize("letter", ["ΐ", "ß", "ﬁ", "İ", "Σ", "é", "ŉ"])
def test_capitals_are_the_same_piece(letter):
    word = f"a{letter}b"
    assert normalised(word.upper()) == normalised(word)


def test_unlike_pieces_stay_apart():
    pieces = ["luca", "luca (sea monster)", "luca paguro", "lucas", "16:9", "9:16", "_", "(", "()"]
    assert split_pieces(assemble_prompt(scene=", ".join(pieces[:-2]))) == pieces[:-2]
    assert len({normalised(piece) or piece for piece in pieces}) == len(pieces)
