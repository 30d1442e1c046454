import pytest
from hypothesis import given
from hypothesis import strategies as st

from animation_studio.control.poses import PoseLibrary, save_pose
from animation_studio.control.skeleton import Keypoint, Person, Pose
from animation_studio.errors import ControlError

POSE = Pose(
    canvas_width=512,
    canvas_height=512,
    people=(Person(body=tuple(Keypoint(10.5 + n, 20) for n in range(18))),),
    description="A test.",
)


def test_saved_poses_are_found(tmp_path):
    path = save_pose(tmp_path, "jump_2", POSE)
    library = PoseLibrary([tmp_path])
    assert path == tmp_path / "jump_2.json"
    assert library.names() == ["jump_2"]
    loaded = library.load("jump_2")
    assert loaded == POSE.model_copy(update={"name": "jump_2"})


def test_later_folders_win_and_missing_ones_are_empty(tmp_path):
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    save_pose(shipped, "standing", POSE)
    save_pose(shipped, "running", POSE)
    save_pose(own, "standing", POSE.model_copy(update={"description": "Mine."}))
    library = PoseLibrary([shipped, own, tmp_path / "none"])
    assert library.names() == ["running", "standing"]
    assert library.load("standing").description == "Mine."
    assert PoseLibrary([]).names() == []


def test_edits_are_seen_and_change_the_hash(tmp_path):
    library = PoseLibrary([tmp_path])
    save_pose(tmp_path, "a", POSE)
    before = library.content_hash("a")
    assert library.content_hash("a") == before
    save_pose(tmp_path, "a", POSE.model_copy(update={"description": "New."}), replace=True)
    assert library.content_hash("a") != before
    assert library.load("a").description == "New."
    (tmp_path / "a.json").unlink()
    assert library.names() == []


def test_unknown_names_get_the_nearest(tmp_path):
    save_pose(tmp_path, "running", POSE)
    save_pose(tmp_path, "sitting", POSE)
    library = PoseLibrary([tmp_path])
    with pytest.raises(ControlError, match=r"Did you mean 'running'.*running, sitting"):
        library.load("runing")
    with pytest.raises(ControlError, match="It is empty"):
        PoseLibrary([tmp_path / "none"]).content_hash("running")


def test_a_broken_file_hides_no_other(tmp_path):
    save_pose(tmp_path, "good", POSE)
    (tmp_path / "broken.json").write_text("{")
    library = PoseLibrary([tmp_path])
    assert library.names() == ["broken", "good"]
    assert library.load("good").people == POSE.people
    with pytest.raises(ControlError, match=r"broken\.json"):
        library.load("broken")


def test_other_files_are_not_poses(tmp_path):
    for name in ("Upper.json", "two words.json", "notes.txt", ".json", ".hidden.json", "ü.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "folder.json").mkdir()
    assert PoseLibrary([tmp_path]).names() == []


BAD_NAMES = ["", "..", "../x", "a/b", "a\\b", "A", "a b", "a.json", "a\n", "\0", "x" * 65, "ß"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(tmp_path, name):
    with pytest.raises(ControlError, match="cannot be used"):
        save_pose(tmp_path, name, POSE)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=12) | st.sampled_from(["../secret", "secret", "..\\secret", "/secret"]))
def test_no_name_leads_out_of_the_folder(tmp_path_factory, name):
    outside = tmp_path_factory.getbasetemp() / "library"
    folder = outside / "poses"
    folder.mkdir(parents=True, exist_ok=True)
    (outside / "secret.json").write_bytes(POSE.to_json())
    with pytest.raises(ControlError, match="not in the library"):
        PoseLibrary([folder]).load(name)


def test_existing_poses_are_kept_unless_replace(tmp_path):
    path = save_pose(tmp_path, "a", POSE)
    before = path.read_bytes()
    with pytest.raises(ControlError, match="exists"):
        save_pose(tmp_path, "a", POSE.model_copy(update={"people": ()}))
    assert path.read_bytes() == before
    save_pose(tmp_path, "a", POSE.model_copy(update={"people": ()}), replace=True)
    assert PoseLibrary([tmp_path]).load("a").people == ()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(ControlError, match=r"a\.json: cannot be written"):
        save_pose(blocker, "a", POSE)
    assert list(tmp_path.iterdir()) == [blocker]
