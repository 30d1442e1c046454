"""A tiny language model for tests: a random Qwen2 with a tokenizer trained on the spot.

Run inside the environment of vLLM: `python standin_llm.py --out FOLDER`. It writes config.json,
model.safetensors, tokenizer.json, tokenizer_config.json (with a chat template) and
generation_config.json. Its answers are noise; it obeys a JSON schema and every sampling setting.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

__all__ = ["main"]

SEED = 20
END_OF_TEXT = "<|endoftext|>"
START, END = "<|im_start|>", "<|im_end|>"
VOCABULARY = 512
CONTEXT = 4096
# What the tokenizer learns its merges from: the words of prompts, and JSON.
CORPUS = (
    "luca runs on the beach of Portorosso, excited, in this pose, at sunset, seen from below",
    "a girl with red hair sits in a quiet library and reads a letter, worried, in soft light",
    '{"plan": "who does what", "prompt": "masterpiece, 1boy, smile", "negative": "blurry"}',
    '{"match": true, "score": 0.82, "reason": "the face and the clothes agree"}',
)
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main(arguments: list[str] | None = None) -> int:
    """Write the model; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args(arguments).out
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(out)
    model = _model(tokenizer)
    model.save_pretrained(out)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"a random Qwen2 with {count:,} parameters")
    return 0


def _tokenizer() -> PreTrainedTokenizerFast:
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bytewise.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START],
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
    )


def _model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


if __name__ == "__main__":
    sys.exit(main())
