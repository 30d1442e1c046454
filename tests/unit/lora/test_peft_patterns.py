"""rank_pattern and alpha_pattern pick what PEFT's own rule picks."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from animation_studio.lora.peft_config import parse_peft_config, pattern_value

MODULES = [
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.0.attentions.1.transformer_blocks.11.attn2.to_out.0",
    "mid_block.resnets.0.conv1",
    "text_model.encoder.layers.10.self_attn.q_proj",
    "conv_in",
]
NAMES = ["down_blocks", "attentions", "to_q", "to_out", "q_proj", "proj_in", "conv1", "conv_in"]
EXPRESSIONS = ["0", "1", r"\d", ".*", "attn[12]", "(attn1|attn2)", "layers", "^mid_block", "x"]
pieces = st.sampled_from(NAMES + EXPRESSIONS)
patterns = st.lists(pieces, min_size=1, max_size=4).map(".".join)


@given(
    patterns=st.dictionaries(patterns, st.integers(1, 64), max_size=5),
    module=st.sampled_from(MODULES),
)
def test_patterns_are_pefts(patterns, module):
    patterns = {text: rank for text, rank in patterns.items() if text.count("*") <= 3}
    scaling = parse_peft_config({"r": 999, "rank_pattern": patterns}, "here")
    expected = patterns.get(get_pattern_key(list(patterns), module), 999)
    assert pattern_value(scaling.rank_patterns, module, 999) == expected


def test_the_room_imports_nothing_heavy():
    code = (
        "import sys, animation_studio.lora; "
        "print(sorted({'torch', 'numpy', 'safetensors', 'comfy'} & set(sys.modules)))"
    )
    root = __file__.rsplit("/tests/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
