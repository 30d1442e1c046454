"""Tiny language models for tests: random weights, and a tokenizer trained on the spot.

Run inside the environment of vLLM: `python standin_llm.py --kind text --out FOLDER`. `text` is a
Qwen2, `vision` a Qwen2.5-VL, which sees pictures as 4 to 64 tokens each. It writes what
transformers loads a model from. Their answers are noise; they obey a JSON schema and every sampling
setting, and end now and then.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

__all__ = ["main"]

SEED = 20
END_OF_TEXT = "<|endoftext|>"
START, END = "<|im_start|>", "<|im_end|>"
PICTURE_START, PICTURE_END = "<|vision_start|>", "<|vision_end|>"
PICTURE, VIDEO = "<|image_pad|>", "<|video_pad|>"
VOCABULARY = 3072  # at most
CONTEXT = 16384
# What the tokenizer learns its merges from: the words of prompts, and JSON.
CORPUS = Path(__file__).with_name("standin_corpus.txt")
# A picture's side is cut in patches of 14 pixels, of which two by two become a token.
PATCH, MERGED = 14, 2
TOKEN_PIXELS = (PATCH * MERGED) ** 2
LEAST_TOKENS, MOST_TOKENS = 4, 64

HEAD = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
TAIL = (
    "{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXT_TEMPLATE = HEAD + "{{ message['content'] }}" + TAIL
# A message is a text, or a list of parts in their order.
VISION_TEMPLATE = (
    HEAD + "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}" + TAIL
)
LANGUAGE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
    "bos_token_id": None,
}


def main(arguments: list[str] | None = None) -> int:
    """Write the model; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=("text", "vision"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    if options.kind == "text":
        tokenizer = _tokenizer([END_OF_TEXT, START, END], TEXT_TEMPLATE)
        model = _text_model(tokenizer)
    else:
        pictures = [PICTURE_START, PICTURE_END, PICTURE, VIDEO]
        tokenizer = _tokenizer([END_OF_TEXT, START, END, *pictures], VISION_TEMPLATE)
        model = _vision_model(tokenizer)
        _write_picture_settings(options.out)
    tokenizer.save_pretrained(options.out)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(options.out)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"a random {type(model).__name__} with {count:,} parameters")
    return 0


def _tokenizer(special: list[str], template: str) -> PreTrainedTokenizerFast:
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bytewise.train_from_iterator(CORPUS.read_text(encoding="utf-8").splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[token for token in special if token not in (END, END_OF_TEXT)],
        chat_template=template,
        model_max_length=CONTEXT,
    )


def _ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _text_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**LANGUAGE, **_ends(tokenizer)))


def _vision_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    identity = tokenizer.convert_tokens_to_ids
    # Of a head's 32 rotated numbers half are pairs: these many for time, height and width.
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config={**LANGUAGE, **_ends(tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": LANGUAGE["hidden_size"],
            "patch_size": PATCH,
            "spatial_merge_size": MERGED,
            "temporal_patch_size": 2,
            "window_size": 4 * PATCH * MERGED,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=True,
        vision_start_token_id=identity(PICTURE_START),
        vision_end_token_id=identity(PICTURE_END),
        image_token_id=identity(PICTURE),
        video_token_id=identity(VIDEO),
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _write_picture_settings(folder: Path) -> None:
    """As data: transformers' own classes for it need torchvision."""
    shared = {
        "patch_size": PATCH,
        "merge_size": MERGED,
        "temporal_patch_size": 2,
        "size": {
            "shortest_edge": LEAST_TOKENS * TOKEN_PIXELS,
            "longest_edge": MOST_TOKENS * TOKEN_PIXELS,
        },
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
        "processor_class": "Qwen2_5_VLProcessor",
    }
    pictures = {**shared, "image_processor_type": "Qwen2VLImageProcessor"}
    videos = {**shared, "video_processor_type": "Qwen2VLVideoProcessor"}
    for name, settings in (
        ("preprocessor_config.json", pictures),
        ("video_preprocessor_config.json", videos),
    ):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
