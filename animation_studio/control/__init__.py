"""Control maps: preprocessing of reference pictures, and the pose library.

What comes in: pictures as uint8 [H, W, 3] arrays, poses as OpenPose JSON files or POSE_KEYPOINT
values, the settings of a preprocessor, and the folders where poses and annotator weights lie.
What goes out: maps as uint8 [H, W, 3] arrays, drawn or computed as the ControlNets were trained
on, and `Pose` models; what cannot be used is a ControlError. Nothing is ever downloaded.

Importing this room loads neither NumPy nor Pillow; the functions load what they need.
"""

from .canny import canny
from .draw import draw_pose
from .poses import PoseLibrary, save_pose
from .preprocess import NETWORKS, PREPROCESSORS, preprocess, unload_preprocessors
from .skeleton import Keypoint, Person, Pose

__all__ = [
    "NETWORKS",
    "PREPROCESSORS",
    "Keypoint",
    "Person",
    "Pose",
    "PoseLibrary",
    "canny",
    "draw_pose",
    "preprocess",
    "save_pose",
    "unload_preprocessors",
]
