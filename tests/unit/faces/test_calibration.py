"""Calibration: the scores by hand, the threshold against its definition."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from animation_studio.errors import FaceError
from animation_studio.faces.calibration import calibrate
from animation_studio.faces.references import References
from tests.support.square_faces import point, square_model


def of(character, *angles, model=None):
    model = model or square_model()
    files = tuple(f"{character}_{angle}.npy" for angle in angles)
    return References(character, character.title(), model, point(*angles), files)


def cos(*degrees):
    return np.sort(np.cos(np.radians(degrees)))


def test_genuine_is_leave_one_out_and_impostor_is_across():
    done = calibrate([of("luca", 0, 10, 30), of("giulia", 90, 95)], 0.1)
    # 0 and 10 are 10 apart, 30 is 20 from 10; 90 and 95 are 5 apart.
    assert done.genuine == pytest.approx(cos(10, 10, 20, 5, 5), abs=1e-6)
    # Luca's faces against Giulia's nearest, and the other way round.
    assert done.impostor == pytest.approx(cos(90, 80, 60, 60, 65), abs=1e-6)
    luca, giulia = done.per_character
    assert (luca.character, luca.references, luca.confused_with) == ("luca", 3, "giulia")
    assert luca.lowest_genuine == pytest.approx(cos(20)[0], abs=1e-6)
    assert giulia.highest_impostor == pytest.approx(cos(60)[0], abs=1e-6)


def test_far_apart_characters_get_a_threshold_in_the_middle():
    done = calibrate([of("luca", 0, 2, 4, 6, 8), of("giulia", 80, 82, 84, 86, 88)], 0.1)
    assert done.impostor[-1] < done.threshold <= done.genuine[0]
    assert done.threshold == round(done.threshold, 2)
    assert done.threshold == pytest.approx((cos(72)[0] + cos(2)[0]) / 2, abs=0.01)
    assert (done.measured_far, done.measured_frr) == (0.0, 0.0)
    assert done.equal_error_threshold == done.threshold
    assert not done.overlap
    assert done.warnings == ()


ANGLES = st.lists(st.integers(0, 359), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(
    st.lists(ANGLES, min_size=2, max_size=4),
    st.sampled_from([0.0, 0.01, 0.05, 0.29, 0.5, 1.0]) | st.floats(0, 1),
    st.sampled_from(["max", "mean of best k"]),
)
def test_the_threshold_is_the_lowest_with_at_most_the_asked_rate(faces, rate, rule):
    done = calibrate([of(f"c{n}", *angles) for n, angles in enumerate(faces)], rate, rule, 2)
    impostor = done.impostor.astype(np.float64)
    assert done.measured_far == np.mean(impostor >= done.threshold)
    assert done.measured_far <= rate + 1e-9
    # The next lower score would let more in than asked.
    below = impostor[impostor < done.threshold]
    if len(below):
        assert np.mean(impostor >= below.max()) > rate
    if len(done.genuine):
        genuine = done.genuine.astype(np.float64)
        assert done.measured_frr == pytest.approx(np.mean(genuine < done.threshold))
        assert done.overlap == (impostor.max() >= genuine.min())
    else:
        assert done.measured_frr is None
        assert done.equal_error_threshold is None


def test_equal_error_threshold_balances_both_rates():
    done = calibrate([of("a", 0, 10, 20, 30, 60), of("b", 50, 70, 80, 90, 100)], 0.0)
    assert done.overlap
    equal = done.equal_error_threshold
    far = np.mean(done.impostor.astype(float) >= equal)
    frr = np.mean(done.genuine.astype(float) < equal)
    gaps = [
        abs(np.mean(done.impostor >= at) - np.mean(done.genuine < at))
        for at in np.linspace(-1, 1, 4001)
    ]
    assert abs(far - frr) <= min(gaps) + 1e-9


def test_overlap_is_a_warning_that_names_who():
    done = calibrate([of("luca", 0, 4, 8, 12, 40), of("giulia", 42, 46, 50, 54, 58)], 0.2)
    assert done.overlap
    (warning,) = (line for line in done.warnings if "overlap" in line)
    assert "Luca with giulia" in warning


def test_few_references_and_single_ones_are_warned_of():
    done = calibrate([of("luca", 0, 4), of("giulia", 80)], 0.5)
    assert any("Luca (2), Giulia (1)" in line for line in done.warnings)
    assert done.per_character[1].lowest_genuine is None
    alone = calibrate([of("luca", 0), of("giulia", 80)], 0.5)
    assert len(alone.genuine) == 0
    assert any("no genuine scores" in line for line in alone.warnings)
    assert alone.threshold > alone.impostor[-1]


def test_a_rate_that_so_few_scores_cannot_show_is_said():
    references = [of("luca", 0, 2, 4, 6, 8), of("giulia", 80, 82, 84, 86, 88)]
    (warning,) = calibrate(references, 0.001).warnings
    assert "10 impostor scores cannot show a false-accept rate of 0.001" in warning
    assert "up to 0.3" in warning
    assert calibrate(references, 0.1).warnings == ()


def test_lines_for_the_configuration():
    text = calibrate([of("luca", 0, 2), of("giulia", 80, 82)], 0.1).as_yaml()
    parsed = yaml.safe_load(text)
    assert set(parsed) == {"luca", "giulia"}
    assert 0.5 < parsed["luca"]["consistency_threshold"] < 1
    dlib = square_model("dlib", "euclidean")
    done = calibrate([of("luca", 0, 2, model=dlib), of("giulia", 80, 82, model=dlib)], 0.1)
    parsed = yaml.safe_load(done.as_yaml())
    assert parsed["giulia"] == {"consistency_thresholds": {"dlib": done.threshold}}


def test_lines_stay_in_the_bounds_of_the_configuration():
    opposite = calibrate([of("a", 0, 90), of("b", 180, 270)], 1.0)
    assert opposite.threshold < 0
    assert yaml.safe_load(opposite.as_yaml())["a"]["consistency_threshold"] == 0


@pytest.mark.parametrize(
    ("references", "rate", "message"),
    [
        ([], 0.1, "here is none"),
        ([of("luca", 0, 1)], 0.1, "here is luca"),
        ([of("luca", 0), of("luca", 1)], 0.1, "listed twice"),
        ([of("luca", 0), of("giulia", 1, model=square_model(digit="b"))], 0.1, "different models"),
        ([of("luca", 0), of("giulia", 1)], -0.1, "from 0 to 1"),
        ([of("luca", 0), of("giulia", 1)], float("nan"), "from 0 to 1"),
    ],
)
def test_what_cannot_be_calibrated_is_said(references, rate, message):
    with pytest.raises(FaceError, match=message):
        calibrate(references, rate)
