"""The faces that other tests rely on are where they are said to be, and insightface finds them.

The stand-in pack runs through insightface's own FaceAnalysis, SCRFD and ArcFaceONNX, unchanged.
"""

from __future__ import annotations

import numpy as np
import pytest
from insightface.app import FaceAnalysis

from tests.support.faces import (
    EDITS,
    KNOWN_FACES,
    STANDIN_PACK,
    different_people,
    portrait,
    same_people,
    who,
)

# insightface 2.1 calls what scikit-image 0.26 renames.
pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
NAMES = sorted({face.picture for face in KNOWN_FACES})


@pytest.fixture(scope="module")
def analysis(insightface_root):
    made = FaceAnalysis(
        STANDIN_PACK, root=str(insightface_root), providers=["CPUExecutionProvider"]
    )
    made.prepare(ctx_id=0, det_size=(640, 640))
    return made


def bgr(picture):
    return np.ascontiguousarray(picture[:, :, ::-1])


@pytest.fixture(scope="module")
def found(analysis, face_pictures):
    """What FaceAnalysis finds in each picture, by the known face; None for a box elsewhere."""
    with pytest.warns(FutureWarning, match="estimate"):
        return {
            name: [(who(name, tuple(face.bbox)), face) for face in analysis.get(bgr(picture))]
            for name, picture in face_pictures.items()
        }


def test_the_pack_has_the_form_of_insightfaces_own(analysis):
    detector, recogniser = analysis.models["detection"], analysis.models["recognition"]
    assert (detector.fmc, detector._num_anchors, detector.use_kps) == (3, 2, True)
    assert (detector.batched, detector.static_input_size) == (False, None)
    assert (recogniser.input_size, recogniser.input_mean) == ((112, 112), 127.5)
    crops = [np.full((112, 112, 3), value, np.uint8) for value in (0, 128, 255)]
    together, alone = recogniser.get_feat(crops), np.vstack([recogniser.get_feat(c) for c in crops])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_known_face_is_found_once_and_nothing_else(found, name):
    known = [face for face in KNOWN_FACES if face.picture == name]
    assert sorted(map(id, known)) == sorted(id(face) for face, _ in found[name])


@pytest.mark.parametrize("name", NAMES)
def test_five_points_lie_where_they_should(found, name):
    """Left eye, right eye, nose, corners of the mouth, as ArcFace's alignment wants them."""
    for known, face in found[name]:
        left, top, right, bottom = face.bbox
        points = (face.kps - (left, top)) / (right - left, bottom - top)
        eye_left, eye_right, nose, mouth_left, mouth_right = points
        assert (points > -0.05).all(), known
        assert (points < 1.05).all(), known
        assert max(eye_left[1], eye_right[1]) < nose[1] < min(mouth_left[1], mouth_right[1]), known
        if known.hard != "in profile":
            assert eye_left[0] < eye_right[0], known
            assert mouth_left[0] < mouth_right[0], known


def test_sizes_that_are_not_square(analysis, face_pictures):
    """SCRFD's outputs follow the input: every size that is a multiple of 32."""
    detector = analysis.models["detection"]
    for size in ((128, 128), (320, 640), (1280, 896)):
        boxes, _ = detector.detect(bgr(face_pictures["astronaut"]), input_size=size)
        assert [who("astronaut", tuple(box[:4])).person for box in boxes] == ["astronaut/1"], size


def test_people_differ_and_stay_themselves(found):
    vectors = {
        id(known): face.normed_embedding for pairs in found.values() for known, face in pairs
    }
    score = {
        (a, b): float(vectors[id(a)] @ vectors[id(b)])
        for a, b in [*different_people(), *same_people()]
    }
    impostor = np.array([score[pair] for pair in different_people()])
    genuine = np.array([score[pair] for pair in same_people()])
    assert len(impostor) == 404
    assert abs(impostor.mean()) < 0.1
    assert impostor.max() < 0.5 < genuine.min()


@pytest.mark.parametrize("edit", EDITS)
def test_edits_keep_the_person(analysis, face_pictures, found, edit):
    """Of the faces that are not hard; a mirrored face is a little less alike than the rest."""
    easy = [(known, face) for name in ("t1", "astronaut") for known, face in found[name]]
    scores = []
    for known, face in easy:
        seen = analysis.get(bgr(EDITS[edit](portrait(face_pictures, known))), max_num=1)
        scores.append(float(seen[0].normed_embedding @ face.normed_embedding))
    assert min(scores) > 0.6, scores
    assert np.mean(scores) > 0.8, scores


def test_pictures_are_rgb(face_pictures):
    """The astronaut's suit is orange; in BGR it would be blue."""
    red, _, blue = face_pictures["astronaut"][280, 100].astype(int)
    assert red > blue + 80
    assert {name: picture.shape for name, picture in face_pictures.items()}["t1"] == (886, 1280, 3)
