"""Preprocessing with the real controlnet_aux and random stand-in weights of its own networks."""

import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from animation_studio.control import annotators, canny, preprocess, unload_preprocessors
from animation_studio.control import draw as drawing
from animation_studio.control.preprocess import PREPROCESSORS, _pose
from animation_studio.errors import ControlError, MissingPackageError

ROOT = Path(__file__).parents[3]


def disc_picture(width, height):
    ys, xs = np.mgrid[:height, :width]
    inside = (xs - width / 2) ** 2 + (ys - height / 2) ** 2 < (min(width, height) / 5) ** 2
    return np.where(inside[:, :, None], [200, 90, 40], [30, 60, 120]).astype(np.uint8)


def random_weights(network, *, nested):
    """He initialisation, no biases; in 16 bits, so that the files stay small."""
    weights = {}
    for name, value in network.state_dict().items():
        filled = torch.zeros_like(value)
        if value.ndim == 4:
            torch.nn.init.kaiming_normal_(filled, nonlinearity="relu")
        weights[name.partition(".")[2] if nested else name] = filled.half()
    return weights


@pytest.fixture(scope="module")
def openpose_folder(tmp_path_factory, annotator):
    """Stand-in weights as the hub's repository lies in other packs' folders."""
    package = annotator("open_pose")
    root = tmp_path_factory.mktemp("annotators")
    folder = root / "lllyasviel" / "Annotators"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    for name, build, nested in (
        (annotators.BODY_WEIGHTS, package.body.bodypose_model, True),
        (annotators.HAND_WEIGHTS, package.hand.handpose_model, True),
        (annotators.FACE_WEIGHTS, package.face.FaceNet, False),
    ):
        # The real files are in PyTorch's format of before 2020.
        weights = random_weights(build(), nested=nested)
        torch.save(weights, folder / name, _use_new_zipfile_serialization=False)
    yield root
    unload_preprocessors()


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory, annotator):
    """Stand-in weights of DPT_Hybrid, lying flat."""
    root = tmp_path_factory.mktemp("depth")
    name, backbone = annotators.DEPTH_WEIGHTS["dpt_hybrid"]
    module = annotator("midas.midas.dpt_depth")
    torch.manual_seed(0)
    with annotators._quietly():
        network = module.DPTDepthModel(path=None, backbone=backbone, non_negative=True)
    torch.save({key: value.half() for key, value in network.state_dict().items()}, root / name)
    yield root
    unload_preprocessors()


def test_canny_needs_nothing(photos):
    photo = photos["coffee.png"]
    edges = preprocess("canny", photo, settings={}, annotator_folders=[])
    assert edges.shape == photo.shape
    assert all(np.array_equal(edges[..., n], canny(photo, 100, 200)) for n in range(3))
    settings = {"low_threshold": 20, "high_threshold": 60.5}
    finer = preprocess("canny", photo, settings=settings, annotator_folders=[])
    assert np.array_equal(finer[..., 0], canny(photo, 20, 60))


def test_bodies_are_found_and_drawn_at_the_pictures_size(openpose_folder):
    picture = disc_picture(96, 64)
    pose_map = preprocess("openpose", picture, settings={}, annotator_folders=[openpose_folder])
    assert pose_map.shape == picture.shape
    assert pose_map.dtype == np.uint8
    assert pose_map.any()


def test_nobody_in_the_picture_is_a_black_map(openpose_folder):
    picture = np.full((64, 64, 3), 128, np.uint8)
    settings = {"detect_hands": True, "detect_face": True}
    folders = [openpose_folder]
    pose_map = preprocess("openpose_full", picture, settings=settings, annotator_folders=folders)
    assert pose_map.shape == picture.shape
    assert not pose_map.any()


def test_hands_and_faces_are_drawn_as_by_the_annotator(openpose_folder, annotator):
    """One body is given (a random network finds dozens), hands and face are detected on it."""
    package = annotator("open_pose")
    names = (annotators.BODY_WEIGHTS, annotators.HAND_WEIGHTS, annotators.FACE_WEIGHTS)
    weights = annotators.find_weights(names, [openpose_folder])
    detector = annotators.openpose_detector(weights, "cpu")
    places = [
        *((256, 120), (256, 200), (190, 200), (150, 290), (140, 380), None, None, None),
        *((220, 330), (215, 420), (210, 500), (290, 330), (295, 420), (300, 500)),
        *((240, 105), (272, 105), (215, 112), (297, 112)),
    ]
    keypoint = package.body.Keypoint
    body = package.BodyResult([p and keypoint(*p) for p in places], 18.0, 18)
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    left, right = detector.detect_hands(body, picture)
    face = detector.detect_face(body, picture)
    assert left is None
    assert len(right) == 21
    assert len(face) > 60
    fractions = [p and keypoint(p[0] / 512, p[1] / 512) for p in places]
    found = package.PoseResult(body._replace(keypoints=fractions), left, right, face)
    # Without the peak of the background, which is no point of the face.
    theirs = package.draw_poses([found._replace(face=face[:-1])], 512, 512)
    ours = drawing.draw_pose(_pose([found], 512, 512), 512, 512)
    assert np.abs(ours.astype(int) - theirs).mean() < 0.2
    both = ours.any(axis=2) & theirs.any(axis=2)
    assert both.sum() / (ours.any(axis=2) | theirs.any(axis=2)).sum() > 0.98


def test_only_the_weights_in_use_are_asked_for(openpose_folder, tmp_path):
    source = openpose_folder / "lllyasviel" / "Annotators" / annotators.BODY_WEIGHTS
    (tmp_path / annotators.BODY_WEIGHTS).symlink_to(source)
    picture = np.full((64, 64, 3), 128, np.uint8)
    preprocess("openpose", picture, settings={}, annotator_folders=[tmp_path])
    with pytest.raises(ControlError, match=r"missing: hand_pose_model\.pth\. Looked") as caught:
        preprocess(
            "openpose", picture, settings={"detect_hands": True}, annotator_folders=[tmp_path]
        )
    assert str(tmp_path) in str(caught.value)


def test_depth_is_grey_and_of_the_pictures_size(depth_folder):
    picture = disc_picture(80, 64)
    settings = {"model_type": "DPT_Hybrid"}
    folders = [depth_folder]
    depth = preprocess("depth_midas", picture, settings=settings, annotator_folders=folders)
    assert depth.shape == picture.shape
    assert depth.dtype == np.uint8
    assert depth.std() > 1
    assert np.array_equal(depth[..., 0], depth[..., 2])


def test_depth_is_that_of_the_annotator(depth_folder, annotator):
    picture = disc_picture(512, 512)
    settings = {"model_type": "DPT_Hybrid"}
    folders = [depth_folder]
    ours = preprocess("depth_midas", picture, settings=settings, annotator_folders=folders)
    path = depth_folder / annotators.DEPTH_WEIGHTS["dpt_hybrid"][0]
    network = annotators.depth_network("dpt_hybrid", path, "cpu")
    theirs = annotator("midas").MidasDetector(network)(picture)
    assert np.array_equal(ours, theirs)


def test_the_default_depth_network_is_one_the_package_knows(annotator):
    module = annotator("midas.midas.dpt_depth")
    backbone = annotators.DEPTH_WEIGHTS["dpt_large"][1]
    with torch.device("meta"), annotators._quietly():
        network = module.DPTDepthModel(path=None, backbone=backbone, non_negative=True)
    assert sum(value.numel() for value in network.parameters()) > 340e6


def test_networks_are_kept_until_unloaded(openpose_folder, tmp_path):
    source = openpose_folder / "lllyasviel" / "Annotators" / annotators.FACE_WEIGHTS
    weights = {annotators.FACE_WEIGHTS: tmp_path / "facenet.pth"}
    weights[annotators.FACE_WEIGHTS].write_bytes(source.read_bytes())

    def network():
        return annotators.openpose_detector(weights, "cpu").face_estimation.model

    first = network()
    assert network() is first
    # A file that was written again is read again.
    os.utime(tmp_path / "facenet.pth", (1, 1))
    second = network()
    assert second is not first
    unload_preprocessors()
    assert network() is not second


def test_missing_weights_are_all_named(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ControlError) as caught:
        preprocess("openpose_full", picture, settings={}, annotator_folders=folders)
    message = str(caught.value)
    for part in (
        "body_pose_model.pth, hand_pose_model.pth, facenet.pth",
        str(folders[0]),
        str(folders[1]),
        "https://huggingface.co/lllyasviel/Annotators",
    ):
        assert part in message
    with pytest.raises(ControlError, match=r"dpt_large-midas-2f21e586\.pt from https://git"):
        preprocess("depth_midas", picture, settings={}, annotator_folders=folders)


def test_a_hugging_face_cache_is_searched(tmp_path):
    snapshot = tmp_path / "models--lllyasviel--Annotators" / "snapshots" / "982e7edaec38"
    snapshot.mkdir(parents=True)
    (snapshot / "facenet.pth").write_bytes(b"x")
    found = annotators.find_weights(["facenet.pth"], [tmp_path])
    assert found == {"facenet.pth": snapshot / "facenet.pth"}


class Malicious:
    """What an unpickler that runs code would do: write the file named."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "code ran")


def test_code_in_weights_never_runs(tmp_path):
    proof = tmp_path / "proof"
    torch.save({"model": Malicious(proof)}, tmp_path / annotators.BODY_WEIGHTS)
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ControlError, match="not a readable file of PyTorch weights"):
        preprocess("openpose", picture, settings={}, annotator_folders=[tmp_path])
    assert not proof.exists()


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello", "x")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not weights at all"),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
        write_zip,
        lambda path: torch.save([torch.zeros(1)], path),
        lambda path: torch.save({"optimizer": {}}, path),
        lambda path: torch.save({"a": torch.zeros(1)}, path),
    ],
)
@pytest.mark.parametrize("kind", ["openpose", "depth_midas"])
def test_other_files_are_named(tmp_path, kind, write):
    name = (
        annotators.BODY_WEIGHTS if kind == "openpose" else annotators.DEPTH_WEIGHTS["dpt_hybrid"][0]
    )
    write(tmp_path / name)
    settings = {"model_type": "DPT_Hybrid"}
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ControlError) as caught:
        preprocess(kind, picture, settings=settings, annotator_folders=[tmp_path])
    assert str(tmp_path / name) in str(caught.value)


def test_a_device_that_does_not_exist_is_named(openpose_folder):
    picture = np.full((64, 64, 3), 128, np.uint8)
    with pytest.raises(ControlError, match="no device 'gpu'"):
        preprocess(
            "openpose", picture, settings={}, annotator_folders=[openpose_folder], device="gpu"
        )


@pytest.mark.parametrize("kind", PREPROCESSORS)
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((1, 1, 3), np.uint8), "1x1 pixels; sides of 64 to 8192"),
        (np.zeros((64, 8193, 3), np.uint8), "8193x64"),
        (np.zeros((64, 64), np.uint8), r"uint8 \[64, 64\]"),
        (np.zeros((64, 64, 4), np.uint8), r"\[64, 64, 4\]"),
        (np.zeros((64, 64, 3), np.float32), "float32"),
    ],
)
def test_other_pictures_are_refused(kind, picture, message):
    with pytest.raises(ControlError, match=message):
        preprocess(kind, picture, settings={}, annotator_folders=[])


def test_long_strips_are_refused_where_a_network_would_enlarge_them():
    strip = np.zeros((64, 640, 3), np.uint8)
    with pytest.raises(ControlError, match="8 times as long"):
        preprocess("openpose", strip, settings={}, annotator_folders=[])
    assert preprocess("canny", strip, settings={}, annotator_folders=[]).shape == strip.shape


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("canny", {"low_threshold": "100"}, "low_threshold is '100'"),
        ("canny", {"high_threshold": math.nan}, "high threshold"),
        ("canny", {"low_threshold": -1}, "low threshold"),
        ("openpose", {"detect_hands": "yes"}, "detect_hands is 'yes'; true or false"),
        ("openpose_full", {"detect_face": 1}, "detect_face is 1"),
        ("depth_midas", {"model_type": "MiDaS_small"}, "DPT_Large or DPT_Hybrid"),
        ("depth", {}, "'depth' is not known; known are canny, openpose"),
    ],
)
def test_other_settings_are_named(kind, settings, message):
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ControlError, match=message):
        preprocess(kind, picture, settings=settings, annotator_folders=[])


# What a user's Python without some packages says: imports of those fail as if not installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.path.append({root!r})
import animation_studio.control as control
heavy = {{"numpy", "PIL", "scipy", "torch", "cv2", "controlnet_aux"}} & set(sys.modules)
assert not heavy, heavy
import numpy as np
from pathlib import Path
from animation_studio.errors import StudioError
picture = np.zeros((64, 64, 3), np.uint8)
try:
    control.preprocess({kind!r}, picture, settings={{}}, annotator_folders=[Path({folder!r})])
except StudioError as error:
    print(type(error).__name__, error)
else:
    print("fine", *sorted({{"cv2", "controlnet_aux"}} & set(sys.modules)))
"""


def run_without(missing, kind, folder):
    code = WITHOUT.format(missing=missing, root=str(ROOT), kind=kind, folder=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


def test_canny_works_without_opencv_and_controlnet_aux(tmp_path):
    assert run_without(["cv2", "controlnet_aux"], "canny", tmp_path) == "fine\n"


@pytest.mark.parametrize(
    ("missing", "named"),
    [("controlnet_aux", "controlnet_aux is not installed"), ("timm", "needs the package 'timm'")],
)
def test_missing_packages_get_their_install_line(tmp_path, missing, named):
    (tmp_path / annotators.BODY_WEIGHTS).write_bytes(b"")
    said = run_without([missing], "openpose", tmp_path)
    assert said.startswith(MissingPackageError.__name__)
    assert named in said
    assert "pip install controlnet_aux" in said
    assert "--no-deps" in said
