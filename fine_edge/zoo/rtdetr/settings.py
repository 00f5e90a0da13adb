"""The settings in ``config.json`` of an RT-DETR: those that change the computation are used, or refused by name.

Settings that a file leaves out get transformers' own defaults, as in transformers itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.zoo.hf_processor import refused, same, shown, unknown

MODEL_TYPE, BACKBONE_TYPE = "rt_detr", "rt_detr_resnet"

# Other detectors of transformers by the model_type of their config.json, to be named in a message.
_OTHER_MODELS = {
    "rt_detr_v2": "RT-DETRv2",
    "d_fine": "D-FINE",
    "deformable_detr": "Deformable DETR",
    "conditional_detr": "Conditional DETR",
    "detr": "DETR",
    "dab-detr": "DAB-DETR",
    "deta": "DETA",
    "yolos": "YOLOS",
    "rf_detr": "RF-DETR",
    "lw_detr": "LW-DETR",
    "grounding-dino": "Grounding DINO",
}


def _whole(least: int, most: int) -> tuple[Callable[[Any], bool], str]:
    # type() and not isinstance(), as the true of a JSON file is an int to isinstance().
    return lambda value: type(value) is int and least <= value <= most, f"a whole number from {least} to {most}"


def _positive(value: Any) -> bool:
    # Bounded, as a number in a JSON file may be larger than any float.
    return type(value) in (int, float) and 0 < value < 2**31


def _three_widths(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(type(x) is int and 0 < x < 2**16 for x in value)


_WIDTH, _HEADS, _LAYERS = _whole(1, 2**14), _whole(1, 2**10), _whole(1, 64)
_REAL, _WIDTHS = (_positive, "a number above 0"), (_three_widths, "three whole numbers")
# The settings that a model is built with: a test of the value, and its description.
_USED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "d_model": _WIDTH,
    "encoder_hidden_dim": _WIDTH,
    "encoder_ffn_dim": _WIDTH,
    "decoder_ffn_dim": _WIDTH,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_layers": _whole(0, 64),
    "decoder_layers": _LAYERS,
    "decoder_n_points": _whole(1, 64),
    "num_queries": _whole(1, 100_000),
    "encoder_in_channels": _WIDTHS,
    "decoder_in_channels": _WIDTHS,
    "hidden_expansion": _REAL,
    "layer_norm_eps": _REAL,
    "batch_norm_eps": _REAL,
    "positional_encoding_temperature": _REAL,
}
# The settings that the lowered graph assumes, with the values that are supported.
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("silu", "swish"),
    "encoder_activation_function": ("gelu",),
    "decoder_activation_function": ("relu",),
    "feat_strides": ((8, 16, 32),),
    "encode_proj_layers": ((2,),),
    "num_feature_levels": (3,),
    "eval_size": (None,),
    "anchor_image_size": (None,),
    "normalize_before": (False,),
    "learn_initial_query": (False,),
    "with_box_refine": (True,),
    "use_focal_loss": (True,),
    "is_encoder_decoder": (True,),
    "architectures": (None, ("RTDetrForObjectDetection",)),
    "backbone": (None,),
    "use_timm_backbone": (False, None),
    "use_pretrained_backbone": (False, None),
    "backbone_kwargs": (None, {}),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "chunk_size_feed_forward": (0,),
    "torchscript": (False,),
    "auto_map": (None,),
    "custom_pipelines": (None,),
}
_BACKBONE_FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": (BACKBONE_TYPE,),
    "hidden_act": ("relu",),
    "num_channels": (3,),
    "downsample_in_first_stage": (False,),
    "downsample_in_bottleneck": (False,),
    "stage_names": (("stem", "stage1", "stage2", "stage3", "stage4"), None),
    "out_features": (("stage2", "stage3", "stage4"), None),
    "out_indices": ((2, 3, 4), None),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "chunk_size_feed_forward": (0,),
    "torchscript": (False,),
}
_BACKBONE_USED = ("embedding_size", "hidden_sizes", "depths", "layer_type")
# Settings that serve training, text models, or the file itself.
_GENERAL = {
    *("_name_or_path", "name_or_path", "_commit_hash", "_attn_implementation", "_attn_implementation_autoset"),
    *("attn_implementation", "_attn_implementation_internal", "use_return_dict", "transformers.js_config"),
    *("transformers_version", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "model_type"),
    *("output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate", "output_scores"),
    *("problem_type", "finetuning_task", "task_specific_params", "architectures", "is_encoder_decoder", "is_decoder"),
    *("use_bfloat16", "tf_legacy_loss", "tie_word_embeddings", "tie_encoder_decoder", "add_cross_attention"),
    *("cross_attention_hidden_size", "use_cache", "prefix", "tokenizer_class", "bos_token_id", "pad_token_id"),
    *("eos_token_id", "sep_token_id", "decoder_start_token_id", "max_length", "min_length", "do_sample"),
    *("early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
    *("bad_words_ids", "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "gradient_checkpointing"),
}
_HARMLESS = _GENERAL | {
    *("initializer_range", "initializer_bias_prior_prob", "freeze_backbone_batch_norms", "disable_custom_kernels"),
    *("dropout", "activation_dropout", "attention_dropout", "num_denoising", "label_noise_ratio", "box_noise_scale"),
    *("matcher_alpha", "matcher_gamma", "matcher_class_cost", "matcher_bbox_cost", "matcher_giou_cost"),
    *("auxiliary_loss", "focal_loss_alpha", "focal_loss_gamma", "weight_loss_vfl", "weight_loss_bbox"),
    *("weight_loss_giou", "eos_coefficient"),
}
_ALIASES = {"hidden_size": "d_model", "num_attention_heads": "encoder_attention_heads"}

# The settings that decide the shape of a tensor, by its key; the first match applies.
_SHAPED_BY: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern), names)
    for pattern, names in (
        (r"(sampling_offsets|attention_weights)\.", ("decoder_attention_heads", "decoder_n_points", "decoder_layers")),
        (r"^model\.decoder\..*fc\d", ("decoder_ffn_dim", "decoder_layers")),
        (r"^model\.decoder\.", ("decoder_layers", "d_model")),
        (r"aifi\..*fc\d", ("encoder_ffn_dim", "encoder_layers")),
        (r"aifi\.", ("encoder_layers", "encoder_hidden_dim")),
        (r"encoder_input_proj", ("encoder_in_channels", "encoder_hidden_dim")),
        (r"decoder_input_proj", ("decoder_in_channels", "d_model")),
        (r"(fpn|pan)_blocks", ("hidden_expansion", "encoder_hidden_dim")),
        (r"^model\.backbone\.", ("backbone_config",)),
    )
)


def read_settings(data: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Return the arguments of transformers' configuration that a ``config.json`` states for an RT-DETR.

    Args:
        data: contents of the file.
        path: path of the file, for messages.

    Returns:
        The settings to build a model with; ``None`` for a file that only names classes.

    Raises:
        WeightsError: naming the setting that is not supported, or the other model.
    """
    data = _without_aliases(data, path)
    _require_type(data.get("model_type", MODEL_TYPE), path)
    stated: dict[str, Any] = {}
    for name, value in data.items():
        if name == "backbone_config":
            continue
        if name in _USED:
            fits, words = _USED[name]
            if not fits(value):
                raise refused(name, value, (words,), path)
            stated[name] = value
        elif name in _FIXED:
            _require_fixed(name, value, _FIXED[name], path)
        # An unknown setting of null says nothing.
        elif name not in _HARMLESS and value is not None:
            raise unknown(name, value, path)
    # Class names alone: the model is built as for a bare state dict.
    if not stated and "model_type" not in data and not data.get("backbone_config"):
        return None
    _require_divisible(stated, path)
    stated["backbone_config"] = _backbone(data.get("backbone_config"), path)
    return stated


def read_labels(data: Mapping[str, Any], path: Path) -> list[Any] | None:
    """Return the class names of a ``config.json`` by index, ``None`` where it has none.

    Raises:
        WeightsError: for class numbers with a gap or not from 0 on, or for another count than the file states.
    """
    names = data.get("id2label")
    if not names:
        return None
    try:
        # Keys of a JSON object are texts: {"0": "person", "1": "bicycle"}.
        by_index = {int(key): name for key, name in names.items()}
    except (AttributeError, ValueError, TypeError) as error:
        raise WeightsError(f"config.json is broken (id2label: {error})", where=path) from error
    # Contracts list names by index: a gap would give every class behind it the name of another one.
    if sorted(by_index) != list(range(len(names))):
        raise WeightsError(
            f"id2label has {len(names)} names, but not for the classes 0 to {len(names) - 1}",
            where=path,
            hint="number the classes from 0 on without gaps",
        )
    if data.get("num_labels", len(names)) != len(names):
        raise WeightsError(f"num_labels = {data['num_labels']!r}, id2label has {len(names)} names", where=path)
    return [by_index[index] for index in range(len(names))]


def settings_behind(key: str, stated: Mapping[str, Any]) -> str:
    """Return the settings, with their values, that decide whether a tensor exists and its shape."""
    names = next((names for pattern, names in _SHAPED_BY if pattern.search(key)), ("d_model",))
    values = {name: stated.get(name, "the default") for name in names}
    return ", ".join(f"{name} = {shown(value)}" for name, value in values.items())


def stated_settings(model: object) -> dict[str, Any] | None:
    """Return the settings that our own file must hold for a model; ``None`` for models other than RT-DETR."""
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) != MODEL_TYPE:
        return None
    data = {name: getattr(config, name) for name in (*_USED, *_FIXED) if hasattr(config, name)}
    backbone: Any = getattr(config, "backbone_config", None)
    names = ("model_type", "hidden_act", "num_channels", "downsample_in_first_stage", "downsample_in_bottleneck")
    data["backbone_config"] = {name: getattr(backbone, name) for name in (*_BACKBONE_USED, *names, "out_features")}
    return {"model_type": MODEL_TYPE, **data}


def _without_aliases(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings with their aliases replaced by transformers' main names."""
    plain = dict(data)
    for alias, name in _ALIASES.items():
        if alias in plain:
            value = plain.pop(alias)
            # transformers takes both names for one setting, so that one of two values would be dropped in silence.
            if plain.setdefault(name, value) != value:
                raise WeightsError(f"{alias} = {value!r} contradicts {name} = {plain[name]!r}", where=path)
    return plain


def _require_type(kind: object, path: Path) -> None:
    if kind == MODEL_TYPE:
        return
    other = _OTHER_MODELS.get(kind) if isinstance(kind, str) else None
    raise WeightsError(
        f"model_type = {kind!r}: {other or 'this'} is another model than RT-DETR",
        where=path,
        hint=f"supported: {MODEL_TYPE}; other detectors: python -m fine_edge zoo",
    )


def _require_fixed(name: str, value: Any, supported: tuple[Any, ...], path: Path) -> None:
    if not any(same(value, wanted) for wanted in supported):
        raise refused(name, value, supported, path)


def _require_divisible(stated: Mapping[str, Any], path: Path) -> None:
    # 256 and 8 are transformers' defaults, which a file may leave out.
    width, encoder_width = stated.get("d_model", 256), stated.get("encoder_hidden_dim", 256)
    if width != encoder_width:
        raise WeightsError(
            f"d_model = {width} beside encoder_hidden_dim = {encoder_width} is not supported", where=path
        )
    for name in ("encoder_attention_heads", "decoder_attention_heads"):
        if width % stated.get(name, 8):
            raise WeightsError(f"{name} = {stated[name]} does not divide d_model = {width}", where=path)


def _backbone(data: Any, path: Path) -> dict[str, Any]:
    """Return the arguments of the backbone's configuration."""
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise refused("backbone_config", data, ("settings of rt_detr_resnet",), path)
    # The maps of strides 8, 16 and 32, which transformers asks for where a file states none.
    stated: dict[str, Any] = {"model_type": BACKBONE_TYPE, "out_indices": [2, 3, 4]}
    for name, value in data.items():
        if name in _BACKBONE_FIXED:
            _require_fixed(f"backbone_config.{name}", value, _BACKBONE_FIXED[name], path)
        elif name in _BACKBONE_USED:
            stated[name] = value
        elif name not in _GENERAL and value is not None:
            raise unknown(f"backbone_config.{name}", value, path)
    return stated
