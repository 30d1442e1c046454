"""SDXL and SD 1.5: each takes its own LoRAs and refuses the other's by name."""

from __future__ import annotations

import pytest
import yaml

from animation_studio.errors import PromptFailedError
from tests.support.pictures import pixels, saved
from tests.support.prompts import bundled, changed

LOADER = "AnimStudio_CharacterLoraLoader"
SD15_CHECKPOINT = "v1-5-pruned-emaonly.safetensors"
SD15_LORA = "sd15_other_base.safetensors"


@pytest.fixture
def with_sd15_style(comfyui):
    """A style whose LoRA was made for SD 1.5."""
    path = comfyui.config_dir / "lora_registry.yaml"
    path.write_text(yaml.safe_dump({"styles": {"old": {"name": "Old", "lora_path": SD15_LORA}}}))
    yield
    path.unlink()


def test_an_sd15_lora_is_refused_on_sdxl(comfyui, with_sd15_style):
    prompt = changed(bundled("luca_character"), LOADER, style="old")
    with pytest.raises(PromptFailedError) as caught:
        comfyui.run(prompt)
    message = str(caught.value)
    assert f"{SD15_LORA} was trained for SD 1.5; the checkpoint is SDXL" in message


def test_an_sd15_checkpoint_takes_its_own_and_refuses_sdxls(comfyui, with_sd15_style):
    prompt = changed(bundled("luca_character"), "CheckpointLoaderSimple", ckpt_name=SD15_CHECKPOINT)
    with pytest.raises(PromptFailedError) as caught:
        comfyui.run(prompt)
    message = str(caught.value)
    assert "luca_character.safetensors was trained for SDXL; the checkpoint is SD 1.5" in message
    own = changed(prompt, LOADER, character="none", style="old")
    on, off = (
        pixels(saved(comfyui, comfyui.run(changed(own, LOADER, style_weight=weight)))[0])
        for weight in (1.0, 0.0)
    )
    assert abs(on - off).mean() > 0.5
