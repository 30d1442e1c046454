"""Where things lie: configuration, poses, LoRAs, ControlNets and preprocessor weights."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import folder_paths

from ..errors import ControlError, LoraError
from ..registry import ControlType

__all__ = [
    "CONFIG_VARIABLE",
    "annotator_folders",
    "answers_folder",
    "config_layers",
    "controlnet_file",
    "insightface_folders",
    "judged_folder",
    "lora_file",
    "named_layers",
    "pose_folders",
    "reference_file",
    "references_folder",
    "register_model_folders",
    "user_folder",
]

CONFIG_VARIABLE = "ANIMATION_STUDIO_CONFIG"
_SHIPPED = Path(__file__).parents[2] / "configs"
_ANNOTATORS = "annotators"
_INSIGHTFACE = "insightface"


def user_folder() -> Path:
    """Return the user's own folder, `animation_studio` in ComfyUI's user directory.

    It stands beside the per-user folders and not in one, because pages can write those over HTTP.
    """
    return Path(folder_paths.get_user_directory()) / "animation_studio"


def config_layers() -> list[Path]:
    """Return the configuration folders, later ones over earlier ones.

    Shipped defaults, the user's folder, then the folders named by ANIMATION_STUDIO_CONFIG
    (separated as in PATH).
    """
    return [_SHIPPED, user_folder(), *named_layers()]


def named_layers() -> list[Path]:
    """Return the folders that ANIMATION_STUDIO_CONFIG names."""
    named = os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep)
    return [Path(name).expanduser() for name in named if name.strip()]


def pose_folders() -> list[Path]:
    """Return the folders of the pose library, later ones over earlier ones."""
    return [layer / "poses" for layer in config_layers()]


def register_model_folders() -> None:
    """Make `annotators` and `insightface` model folders: extra_model_paths.yaml can add to them."""
    for name in (_ANNOTATORS, _INSIGHTFACE):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))


def annotator_folders() -> list[Path]:
    """Return the folders in which preprocessor weights are looked for."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(_ANNOTATORS)]


def insightface_folders() -> list[Path]:
    """Return the folders in which insightface's model packs (`models/buffalo_l`) are looked for."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(_INSIGHTFACE)]


def references_folder() -> Path:
    """Return where nodes save face references, a folder for each character."""
    return user_folder() / "references"


def judged_folder() -> Path:
    """Return where pictures that Until Consistent judged are kept."""
    return user_folder() / "judged"


def answers_folder() -> Path:
    """Return where plans that a language model wrote are kept."""
    return user_folder() / "answers"


def reference_file(path: str) -> Path:
    """Return the file of a `reference_embeddings` entry, which need not be there.

    A relative path is looked for in the configuration folders, the last one first.
    """
    layers = reversed(config_layers())
    candidates = [layer / Path(path).expanduser() for layer in layers]
    return next((file for file in candidates if file.is_file()), candidates[0])


def lora_file(lora_path: str, entry: str) -> Path:
    """Return the file or PEFT folder of a registry entry's `lora_path`.

    A relative path is looked for in each of ComfyUI's `loras` folders, in their order. `entry`
    names the entry in the LoraError that is raised when nothing is there.
    """
    path = Path(lora_path).expanduser()
    folders = [Path(folder) for folder in folder_paths.get_folder_paths("loras")]
    candidates = [path] if path.is_absolute() else [folder / path for folder in folders]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    where = "" if path.is_absolute() else f" in {' or '.join(map(str, folders))}"
    raise LoraError(
        f"{entry}: there is no {lora_path!r}{where}. Put the LoRA there, or correct lora_path in "
        "lora_registry.yaml."
    )


def controlnet_file(control: ControlType, name: str) -> Path:
    """Return the file of a control's ControlNet in ComfyUI's `controlnet` folders.

    Its `file` is tried first, then its `model`: as a file name, or as a hub repository
    "owner/name", by the folder `owner/name/` or `name/` (as the hub lays it out) or the file
    `name.safetensors`. `name` names the control in the ControlError raised when none is there.
    """
    files = [
        name
        for name in folder_paths.get_filename_list("controlnet")
        if name.lower().endswith(".safetensors")
    ]
    model = control.model
    found = (control.file and _best_controlnet(control.file, files)) or _best_controlnet(
        model, files
    )
    if found is not None:
        return Path(folder_paths.get_full_path_or_raise("controlnet", found))
    folders = " or ".join(folder_paths.get_folder_paths("controlnet"))
    own = PurePosixPath(model).name.removesuffix(".safetensors")
    link = f" from https://huggingface.co/{model}" if _is_repository(model) else ""
    raise ControlError(
        f"control {name!r}: no ControlNet {model!r} in {folders}. Save it{link} there as "
        f"{own}.safetensors (or the whole repository as a folder {own}/), or name your own file "
        "as `file` of this control in controlnet_config.yaml. Only .safetensors files are used."
    )


def _is_repository(model: str) -> bool:
    return model.count("/") == 1 and not model.endswith(".safetensors")


def _best_controlnet(model: str, files: list[str]) -> str | None:
    wanted = model.replace("\\", "/").removesuffix(".safetensors")
    name = PurePosixPath(wanted).name
    by_name = {file.replace("\\", "/").removesuffix(".safetensors"): file for file in files}
    for exact in (wanted, name):
        if exact in by_name:
            return by_name[exact]
    for folder in (wanted, name):
        inside = sorted(key for key in by_name if key.startswith(f"{folder}/"))
        # The hub keeps full and half precision beside each other; ComfyUI computes in half.
        inside.sort(key=lambda key: ("fp16" not in key, "diffusion_pytorch_model" not in key))
        if inside:
            return by_name[inside[0]]
    return next((file for key, file in by_name.items() if PurePosixPath(key).name == name), None)
