"""PEFT's adapter_config.json: how strong each module is, and what cannot be used here.

Scale of a module (peft/tuners/lora/layer.py, update_layer): lora_alpha / r, with rsLoRA
lora_alpha / sqrt(r); `rank_pattern` and `alpha_pattern` override both by module name. Core computes
alpha / r, so what is written for it is alpha, with rsLoRA alpha * sqrt(r).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LoraError

__all__ = ["Scaling", "parse_peft_config", "pattern_value"]

Patterns = tuple[tuple[re.Pattern[str], float], ...]

# Configurations come from strangers and Python's `re` has no time limit: what can backtrack without
# end is refused. Patterns in use are module names, sometimes with one or two wildcards.
_MAX_PATTERN = 256
_MAX_PATTERNS = 20_000
_MAX_WILDCARDS = 3

_ELSEWHERE = "Merge it into a plain LoRA with PEFT, or train without it."
# Options that change what the adapter computes in ways that are not implemented here.
_REFUSED = {
    "modules_to_save": "it carries whole layers (modules_to_save) beside the LoRA",
    "lora_bias": "it trains biases of the LoRA matrices (lora_bias)",
    "target_parameters": "it adapts bare parameters (target_parameters)",
    "trainable_token_indices": "it trains single tokens of the embedding (trainable_token_indices)",
    "layer_replication": "it repeats layers of the model (layer_replication)",
    "use_qalora": "it is a QA-LoRA (use_qalora)",
    "use_bdlora": "it is a block-diagonal LoRA (use_bdlora)",
    "alora_invocation_tokens": "it is an activated LoRA (alora_invocation_tokens)",
    "arrow_config": "it is a router over other LoRAs (arrow_config)",
    "monteclora_config": "it is a MonteCLoRA (monteclora_config)",
    "kasa_config": "it is a KaSA adapter (kasa_config)",
}
# Initialisations that take something out of the base weights, so that the adapter alone is not
# what was trained. PEFT's save_pretrained can convert them and then writes `true` here.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
_PLAIN_INITS = ("gaussian", "eva", "orthogonal")
# Options that only say how the adapter was made or where it sits, and scalars beside the above.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        # PEFT itself resets it for every layer but GPT-2's Conv1D, which no diffusion model has.
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_dora",
        "velora_config",
    }
)
_READ = frozenset(
    {
        "alpha_pattern",
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_rslora",
    }
)


@dataclass(frozen=True)
class Scaling:
    """The strengths that one adapter_config gives its modules; `where` names it in messages."""

    where: str
    rank: int
    alpha: float
    rslora: bool
    dora: bool
    rank_patterns: Patterns
    alpha_patterns: Patterns

    def alpha_for(self, module: str, rank: int) -> float:
        """Return the alpha that core is to divide by `rank` for `module` (PEFT's own name of it).

        Raises LoraError when the configuration gives the module another rank than its tensors have,
        which means that the two do not belong together.
        """
        declared = pattern_value(self.rank_patterns, module, self.rank)
        if declared != rank:
            raise LoraError(
                f"{self.where}: rank {declared:g} is configured for {module}, its tensors have "
                f"rank {rank}: configuration and weights do not belong together. Copy both again."
            )
        alpha = pattern_value(self.alpha_patterns, module, self.alpha)
        return alpha * math.sqrt(rank) if self.rslora else alpha


def parse_peft_config(config: Mapping[str, Any], where: str) -> Scaling:
    """Read an adapter_config given as a mapping.

    Raises LoraError for wrong values and for every option that would change the result and is not
    implemented here, naming it.
    """
    _refuse_unsupported(config, where)
    rank = config.get("r", 8)
    if type(rank) is not int or rank < 1:
        raise LoraError(f"{where}: r must be a whole number above 0, found {rank!r:.80}.")
    return Scaling(
        where=where,
        rank=rank,
        alpha=_number(config.get("lora_alpha", 8), f"{where}: lora_alpha"),
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        rank_patterns=_patterns(config.get("rank_pattern"), f"{where}: rank_pattern"),
        alpha_patterns=_patterns(config.get("alpha_pattern"), f"{where}: alpha_pattern"),
    )


def pattern_value(patterns: Patterns, module: str, default: float) -> float:
    """Return the value of the first pattern that matches `module`, PEFT's rule.

    peft/utils/other.py, get_pattern_key: a pattern matches the whole name, or its end after a dot.
    """
    return next((value for pattern, value in patterns if pattern.match(module)), default)


def _refuse_unsupported(config: Mapping[str, Any], where: str) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise LoraError(
            f"{where}: peft_type {kind!r:.40} cannot be used; only LORA is read from PEFT folders. "
            "LyCORIS kinds are read from files that LyCORIS or kohya's trainers wrote."
        )
    if config.get("bias") not in (None, "none"):
        raise LoraError(f"{where}: it trains biases (bias: {config['bias']!r:.40}). {_ELSEWHERE}")
    for option, reason in _REFUSED.items():
        if config.get(option):
            raise LoraError(f"{where}: {reason}, which is not supported. {_ELSEWHERE}")
    _refuse_init(config.get("init_lora_weights", True), where)
    for option, value in config.items():
        # A number or a text alone switches nothing on; newer versions of PEFT add such options.
        known = option in _REFUSED or option in _WITHOUT_EFFECT or option in _READ
        if not known and value and (value is True or not isinstance(value, (int, float, str))):
            raise LoraError(
                f"{where}: option {option!r:.80} of a newer PEFT is not known here and may change "
                f"the result. {_ELSEWHERE}"
            )


def _refuse_init(init: object, where: str) -> None:
    if not isinstance(init, str) or init.lower() in _PLAIN_INITS:
        return
    known = init.lower().startswith(_BASE_CHANGING_INITS)
    raise LoraError(
        f"{where}: init_lora_weights {init!r:.40} "
        + ("changes the base weights too" if known else "is not known here")
        + ", so the adapter alone is not what was trained. Save it again with PEFT's "
        "save_pretrained(path_initial_model_for_weight_conversion=...)."
    )


def _number(value: object, what: str) -> float:
    number = float(value) if isinstance(value, (int, float)) else math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise LoraError(f"{what} must be a number, found {value!r:.80}.")
    return number


def _patterns(value: object, what: str) -> Patterns:
    if not value:
        return ()
    if not isinstance(value, dict) or len(value) > _MAX_PATTERNS:
        raise LoraError(f"{what} must map at most {_MAX_PATTERNS:,} module names to numbers.")
    return tuple(
        (_compiled(pattern, what), _number(number, f"{what}: {pattern!r:.80}"))
        for pattern, number in value.items()
    )


def _compiled(pattern: str, what: str) -> re.Pattern[str]:
    wildcards = sum(pattern.count(sign) for sign in "*+{")
    nested = re.search(r"\)[*+?{]", pattern) is not None
    if len(pattern) > _MAX_PATTERN or wildcards > _MAX_WILDCARDS or nested:
        raise LoraError(
            f"{what}: the pattern {pattern!r:.80} is too long or repeats too much to be matched "
            f"safely (at most {_MAX_PATTERN} characters, {_MAX_WILDCARDS} wildcards, no repeated "
            "group). Write the modules' names out."
        )
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as error:
        raise LoraError(f"{what}: {pattern!r:.80} is no valid pattern ({error}).") from error
