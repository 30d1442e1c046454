"""insightface's own classes on real faces, with the stand-in pack (CenterFace, a MobileFaceNet)."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from insightface.app import FaceAnalysis
from insightface.utils import face_align
from PIL import Image

from animation_studio.errors import FaceError
from animation_studio.faces.engine import Face
from animation_studio.faces.insight_engine import InsightEngine
from animation_studio.faces.insight_package import CPU, CUDA, gpu_warning, load_model
from animation_studio.files import sha256_of
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
EASY = [face for face in KNOWN_FACES if not face.hard]
NAMES = sorted({face.picture for face in KNOWN_FACES})
ROOT = Path(__file__).resolve().parents[3]


def bgr(picture):
    return np.ascontiguousarray(picture[:, :, ::-1])


@pytest.fixture(scope="module")
def pack(insightface_root):
    return insightface_root / "models" / STANDIN_PACK


@pytest.fixture(scope="module")
def engine(pack):
    return InsightEngine(pack)


@pytest.fixture(scope="module")
def plain(insightface_root):
    """The plain loop that users write."""
    analysis = FaceAnalysis(STANDIN_PACK, root=str(insightface_root), providers=[CPU])
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    return analysis


@pytest.fixture(scope="module")
def found(engine, face_pictures):
    detected = engine.detect([face_pictures[name] for name in NAMES])
    return dict(zip(NAMES, detected, strict=True))


@pytest.fixture(scope="module")
def vectors(engine, face_pictures, found):
    """The embedding of every known face."""
    places = [(who(name, face.box), name, face) for name in NAMES for face in found[name]]
    crops = [engine.align(face_pictures[name], face) for _, name, face in places]
    return {known: vector for (known, *_), vector in zip(places, engine.embed(crops), strict=True)}


def test_what_it_is(engine, pack):
    model = engine.model
    assert (model.engine, model.name) == ("insightface", f"{STANDIN_PACK}/rec")
    assert (model.dimensions, model.metric) == (512, "cosine")
    assert model.sha256 == sha256_of(pack / "rec.onnx")
    assert engine.provider == CPU
    assert (engine.default_threshold, tuple(engine.warnings)) == (0.45, ())


@pytest.mark.parametrize("name", NAMES)
def test_faces_and_embeddings_are_those_of_the_plain_loop(
    engine, plain, face_pictures, found, name
):
    picture, theirs = face_pictures[name], plain.get(bgr(face_pictures[name]))
    assert len(found[name]) == len(theirs)
    for face in found[name]:
        twin = min(theirs, key=lambda one: np.abs(one.bbox - face.box).max())
        np.testing.assert_allclose(face.box, twin.bbox, atol=0.01)
        np.testing.assert_allclose(face.points, twin.kps, atol=0.01)
        assert face.score == pytest.approx(twin.det_score, abs=1e-4)
        [vector] = engine.embed([engine.align(picture, face)])
        assert vector @ twin.normed_embedding > 0.998


@pytest.mark.parametrize("name", NAMES)
def test_largest_first(found, name):
    areas = [face.area for face in found[name]]
    assert areas == sorted(areas, reverse=True)


def test_people_are_told_apart(engine, vectors):
    """404 pairs of different people, all under the default threshold; the one genuine pair over."""
    impostor = np.array([vectors[a] @ vectors[b] for a, b in different_people()])
    genuine = [vectors[a] @ vectors[b] for a, b in same_people()]
    assert len(impostor) == 404
    assert abs(impostor.mean()) < 0.06
    assert impostor.max() < engine.default_threshold < min(genuine)


@pytest.mark.parametrize("edit", EDITS)
def test_edits_keep_the_person(engine, face_pictures, vectors, edit):
    portraits = [EDITS[edit](portrait(face_pictures, known)) for known in EASY]
    crops = [
        engine.align(picture, faces[0])
        for picture, faces in zip(portraits, engine.detect(portraits), strict=True)
    ]
    scores = [
        vector @ vectors[known] for vector, known in zip(engine.embed(crops), EASY, strict=True)
    ]
    assert min(scores) > 0.7, scores
    assert np.mean(scores) > 0.9, scores


def test_the_pictures_are_rgb(engine, plain, face_pictures, found):
    """Crops are RGB; the recogniser gets BGR, in which it then sees what insightface shows it."""
    picture, face = face_pictures["astronaut"], found["astronaut"][0]
    crop = engine.align(picture, face)
    theirs = face_align.norm_crop(bgr(picture), np.array(face.points))
    assert np.abs(crop[:, :, ::-1].astype(int) - theirs).max() <= 2
    wanted = plain.models["recognition"].get_feat(theirs)[0]
    wanted /= np.linalg.norm(wanted)
    assert engine.embed([crop])[0] @ wanted > 0.999
    assert engine.embed([crop[:, :, ::-1]])[0] @ wanted < 0.99


def test_the_wrong_order_costs_likeness(engine, face_pictures, vectors):
    portraits = [bgr(portrait(face_pictures, known)) for known in EASY]
    crops = [
        engine.align(picture, faces[0])
        for picture, faces in zip(portraits, engine.detect(portraits), strict=True)
    ]
    scores = [
        vector @ vectors[known] for vector, known in zip(engine.embed(crops), EASY, strict=True)
    ]
    assert np.mean(scores) < 0.92, scores


@pytest.mark.parametrize("margin", [0.0, 0.15, 0.4])
@pytest.mark.parametrize("side", [32, 1024])
def test_faces_that_fill_the_picture(engine, face_pictures, margin, side):
    """All of them, cut at hair and chin or a little beyond, of 32 and of 1024 pixels."""
    pictures = []
    for known in KNOWN_FACES:
        image = Image.fromarray(portrait(face_pictures, known, margin))
        image = image.resize((round(side * image.width / image.height), side))
        pictures.append(np.asarray(image))
    assert all(engine.detect(pictures))


def test_faces_that_are_cut_are_found_with_a_border(engine, face_pictures):
    """A sixth of the box is missing on every side; 640 alone finds about half of them."""
    cut = [portrait(face_pictures, known, -0.15) for known in KNOWN_FACES]
    alone = [engine._detector.detect(bgr(picture), input_size=(640, 640))[0] for picture in cut]
    assert sum(len(boxes) > 0 for boxes in alone) < 18
    assert sum(map(bool, engine.detect(cut))) > 24


def test_a_face_behind_a_border_lies_where_it_is(engine, face_pictures):
    """What is only found with a border comes back in the picture's own pixels."""
    known = next(face for face in EASY if face.picture == "astronaut")
    picture = np.ascontiguousarray(portrait(face_pictures, known, 0.4))
    [face] = engine.detect([picture])[0]
    [behind] = engine._look_with_border(bgr(picture))
    size = face.box[3] - face.box[1]
    np.testing.assert_allclose(behind.points, face.points, atol=0.08 * size)
    np.testing.assert_allclose(behind.box, face.box, atol=0.12 * size)


def test_twenty_faces(engine, face_pictures):
    sheet = Image.new("RGB", (1120, 1120))
    for place, known in enumerate(EASY[:20]):
        tile = Image.fromarray(portrait(face_pictures, known, 0.4)).resize((224, 280))
        sheet.paste(tile, (place % 5 * 224, place // 5 * 280))
    faces = engine.detect([np.asarray(sheet)])[0]
    tiles = {(int(f.points[2][0] // 224), int(f.points[2][1] // 280)) for f in faces}
    assert len(faces) == len(tiles) == 20


@pytest.mark.parametrize(
    "shape", [(16, 16), (1, 1), (1, 5000), (200, 2), (0, 7), (1024, 1024), (96, 384)]
)
def test_one_colour_at_any_size(engine, shape):
    assert engine.detect([np.full((*shape, 3), 130, np.uint8)]) == [[]]


def test_noise_and_nothing(engine):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert engine.detect([noise]) == [[]]
    assert engine.detect([]) == []
    assert engine.embed([]).shape == (0, 512)


def test_batches_are_single_faces(engine, face_pictures, found):
    crops = [engine.align(face_pictures[n], face) for n in NAMES for face in found[n]]
    crops = crops * 2
    together = engine.embed(crops)
    assert (together.shape, together.dtype) == ((58, 512), np.float32)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([engine.embed([crop]) for crop in crops])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_several_threads(engine, face_pictures):
    pictures = [portrait(face_pictures, known) for known in EASY[:4]]
    alone = engine.detect(pictures)
    crops = [engine.align(p, faces[0]) for p, faces in zip(pictures, alone, strict=True)]
    embedded = engine.embed(crops)
    with ThreadPoolExecutor(6) as pool:
        detected = [pool.submit(engine.detect, pictures) for _ in range(6)]
        known = [pool.submit(engine.embed, crops) for _ in range(6)]
    for one in detected:
        for ours, theirs in zip(one.result(), alone, strict=True):
            np.testing.assert_allclose(ours[0].points, theirs[0].points, atol=0.01)
    for one in known:
        np.testing.assert_allclose(one.result(), embedded, atol=1e-4)


def test_one_session_for_a_file(engine, pack):
    """Whoever opens it, and for whatever engine."""
    first = load_model(pack / "rec.onnx", "", wants_gpu=False, device_id=0)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: InsightEngine(pack)._recogniser, range(4)))
    assert all(one is first for one in others)
    assert engine._detector is load_model(pack / "det.onnx", "", wants_gpu=False, device_id=0)
    # insightface has one for each size it looks at, unless it is told otherwise.
    engine.detect([np.zeros((64, 64, 3), np.uint8)])
    assert set(map(id, engine._detector.resolution_sessions.values())) == {
        id(engine._detector.session)
    }


def test_points_in_one_place(engine):
    face = Face((0.0, 0.0, 9.0, 9.0), 1.0, ((4.0, 4.0),) * 5)
    with pytest.raises(FaceError, match="not apart from each other"):
        engine.align(np.zeros((16, 16, 3), np.uint8), face)


def test_the_gpu_that_is_not_used_is_told(pack):
    wanting = InsightEngine(pack, wants_gpu=True)
    providers = onnxruntime.get_available_providers()
    assert list(wanting.warnings) == [
        text for text in [gpu_warning(providers, wanting.provider)] if text
    ]
    assert (wanting.provider == CUDA) == (not wanting.warnings)


def test_what_is_told_of_the_gpu():
    assert gpu_warning([CUDA, CPU], CUDA) == ""
    assert "has no CUDA in it" in gpu_warning(["AzureExecutionProvider", CPU], CPU)
    assert "could not start CUDA" in gpu_warning([CUDA, CPU], CPU)
    for available in ([CPU], [CUDA, CPU]):
        assert 'CUDA 12 pip install "onnxruntime-gpu' in gpu_warning(available, CPU)


_ALONE = """
import sys
def refuse(event, arguments):
    if event in {"socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen"}:
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
from pathlib import Path
import numpy as np
from animation_studio.faces.insight_engine import InsightEngine
engine = InsightEngine(Path(sys.argv[1]))
assert engine.detect([np.zeros((64, 64, 3), np.uint8)]) == [[]]
assert engine.embed([np.zeros((112, 112, 3), np.uint8)]).shape == (1, 512)
# Numbers under 1e-38 stay what they are in other threads than the engine's own.
small = np.full(64, 1e-40, np.float32)
assert (small * np.float32(1) != 0).all()
"""


def test_nothing_is_fetched_nor_written_nor_changed(pack, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    before = {path: path.stat().st_mtime_ns for path in pack.iterdir()}
    subprocess.run(
        [sys.executable, "-c", _ALONE, str(pack)],
        env=environment,
        cwd=tmp_path,
        check=True,
        timeout=120,
    )
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in pack.iterdir()} == before
