"""The report: what it says of a run, and its published schema."""

import json
import math
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from animation_studio.faces.engine import Face
from animation_studio.faces.judge import JudgeSettings, Subject, Unreadable, judge
from animation_studio.faces.references import References
from animation_studio.faces.report import ConsistencyReport, Tries, json_schema, report_of
from tests.support.square_faces import SquareFaces, painted, point, square_model

SCHEMA = Path(__file__).parents[3] / "web" / "schemas" / "consistency_report-1.schema.json"
FACE, OTHER = (4, 4, 40, 11), (60, 4, 30, 60)


def subject(character="luca", angle=10, warnings=()):
    references = References(
        character, "Luca", square_model(), point(angle), (f"{character}_1.npy",), warnings
    )
    return Subject(references, 0.95)


def report(pictures, subjects=None, node="ConsistencyFilter", options=None, **more):
    engine = SquareFaces(warnings=["The GPU was not used."])
    chosen = subjects or [subject()]
    settings = options or JudgeSettings()
    verdicts = judge(engine, pictures, chosen, settings)
    return report_of(node, engine, chosen, settings, verdicts, **more)


def valid(made):
    document = json.loads(made.as_json(), parse_constant=pytest.fail)
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(published)
    validator.check_schema(published)
    validator(published, format_checker=validator.FORMAT_CHECKER).validate(document)
    return document


def test_the_published_schema_is_the_models():
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert published == json.loads(json_schema()), "run: python scripts/export_schemas.py"
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_report_says_how_each_verdict_came_about():
    pictures = [painted(FACE), painted(OTHER, FACE), painted(), Unreadable("the picture holds NaN")]
    document = valid(report(pictures, seeds=[7, 8, 9, None], versions={"comfyui": "0.3.75"}))
    assert document["format"] == "animation_studio/consistency_report/1"
    assert document["engine"] == {
        "engine": "insightface",
        "model": "squares",
        "sha256": "a" * 64,
        "dimensions": 2,
        "metric": "cosine",
        "provider": "squares CPU",
    }
    assert document["settings"]["which"] == "best match"
    (luca,) = document["subjects"]
    assert luca == {
        "character": "luca",
        "name": "Luca",
        "threshold": 0.95,
        "references": ["luca_1.npy"],
    }
    assert document["totals"] == {
        "pictures": 4,
        "kept": 2,
        "rejected": 2,
        "no_face": 1,
        "unreadable": 1,
        "best": 0,
    }
    kept, second, faceless, unreadable = document["pictures"]
    assert [picture["seed"] for picture in document["pictures"]] == [7, 8, 9, None]
    assert kept["faces"][0]["box"] == [4, 4, 44, 44]
    assert len(kept["faces"][0]["points"]) == 5
    assert kept["subjects"][0]["reference"] == "luca_1.npy"
    assert kept["score"] == pytest.approx(math.cos(math.radians(1)))
    assert second["subjects"][0]["face"] == 0
    assert (faceless["reason"], faceless["score"]) == ("no face was found", None)
    assert (unreadable["unreadable"], unreadable["width"]) == (True, 0)
    assert document["versions"] == {"comfyui": "0.3.75"}
    assert document["created"].endswith("Z")


def test_a_report_of_tries():
    tries = Tries(wanted=2, limit=8, made=3, seeds=[4, 5, 6], judged_before=[4])
    made = report([painted(FACE)], node="UntilConsistent", tries=tries, seeds=[4])
    assert valid(made)["tries"]["judged_before"] == [4]


def test_reports_of_several_characters_and_of_nothing():
    both = [subject(), subject("giulia", 60)]
    document = valid(report([painted(FACE, OTHER, (100, 60, 20, 140))], both))
    assert [found["face"] for found in document["pictures"][0]["subjects"]] == [0, 1]
    all_faces = JudgeSettings(which="all")
    document = valid(report([painted(FACE, OTHER)], options=all_faces))
    assert document["pictures"][0]["strangers"] == [1]
    assert valid(report([]))["totals"]["best"] is None


def test_warnings_of_engine_references_and_run_each_once():
    made = report([], [subject(warnings=("old file",))], warnings=["old file", "a new one"])
    assert made.warnings == ["The GPU was not used.", "old file", "a new one"]


def test_a_report_reads_back():
    made = report([painted(FACE)])
    assert ConsistencyReport.model_validate_json(made.as_json()) == made


def test_numbers_that_are_none_never_get_into_a_report():
    class Broken(SquareFaces):
        def detect(self, pictures):
            return [[Face((0, 0, float("nan"), 9), 1.0, ())] for _ in pictures]

        def align(self, picture, face):
            return np.zeros((4, 4, 3), np.uint8)

    verdicts = judge(Broken(), [painted(FACE)], [subject()])
    with pytest.raises(ValidationError, match="finite number"):
        report_of("ConsistencyFilter", Broken(), [subject()], JudgeSettings(), verdicts)


def test_seeds_are_one_a_picture():
    with pytest.raises(ValueError, match="zip"):
        report([painted(FACE)], seeds=[1, 2])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("totals", "kept"), "two"),
        (("pictures", 0, "score"), "high"),
        (("format",), "animation_studio/consistency_report/2"),
        (("surprise",), 1),
    ],
)
def test_the_schema_refuses_other_documents(path, value):
    document = valid(report([painted(FACE)]))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
