"""What Hugging Face's CLIPModel calls our weights, and its configuration files.

Written for transformers 5.23.0. Its linear layers keep [out, in] where OpenAI has a matrix
[in, out], and its q, k and v are three layers.
"""

from typing import Any

from torch import Tensor

from trainer.tokenizer import vocabulary
from trainer.zoo import MEAN, STD, Model, TextConfig, ViTConfig
from wit.errors import UserError

GELU = {"quick": "quick_gelu", "exact": "gelu"}
# What CLIPConfig takes where a file says nothing, of what changes the numbers and no shape.
DEFAULTS = {
    "text_config": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_attention_heads": 8},
    "vision_config": {
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "num_attention_heads": 12,
    },
}
TRANSPOSED = ("visual.proj", "text_projection")
BLOCK_KEYS = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def vision_transformer(model: Model) -> ViTConfig:
    """The model's image tower; UserError for a ResNet, of which CLIPModel has none."""
    if not isinstance(model.vision, ViTConfig):
        raise UserError(
            f"{model.name}: Hugging Face's CLIPModel has no ResNets; use open_clip's format"
        )
    return model.vision


def keys_of(model: Model) -> dict[str, list[str]]:
    """Our keys and theirs, three where we stack q, k and v. Raises UserError for ResNets."""
    vision = vision_transformer(model)
    keys = {
        "visual.class_embedding": ["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": ["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": ["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": ["visual_projection.weight"],
        "token_embedding.weight": ["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": ["text_model.embeddings.position_embedding.weight"],
        "text_projection": ["text_projection.weight"],
        "logit_scale": ["logit_scale"],
    }
    for kind in ("weight", "bias"):
        keys[f"visual.ln_pre.{kind}"] = [f"vision_model.pre_layrnorm.{kind}"]
        keys[f"visual.ln_post.{kind}"] = [f"vision_model.post_layernorm.{kind}"]
        keys[f"ln_final.{kind}"] = [f"text_model.final_layer_norm.{kind}"]
        for ours, theirs, layers in (
            ("visual.transformer.resblocks", "vision_model.encoder.layers", vision.layers),
            ("transformer.resblocks", "text_model.encoder.layers", model.text.layers),
        ):
            for layer in range(layers):
                here, there = f"{ours}.{layer}", f"{theirs}.{layer}"
                for name, their_name in BLOCK_KEYS.items():
                    keys[f"{here}.{name}.{kind}"] = [f"{there}.{their_name}.{kind}"]
                keys[f"{here}.attn.in_proj_{kind}"] = [
                    f"{there}.self_attn.{part}_proj.{kind}" for part in "qkv"
                ]
    return keys


def to_theirs(state: dict[str, Tensor], model: Model) -> dict[str, Tensor]:
    """Our weights under their names. Raises UserError for ResNets."""
    theirs = {}
    for ours, parts in keys_of(model).items():
        whole = state[ours].T if ours in TRANSPOSED else state[ours]
        pieces = whole.chunk(len(parts)) if len(parts) > 1 else [whole]
        theirs |= {part: t.contiguous() for part, t in zip(parts, pieces, strict=True)}
    return theirs


def config(model: Model) -> dict[str, Any]:
    """`config.json` of CLIPModel. Raises UserError for ResNets."""
    vision, text = vision_transformer(model), model.text
    both = {
        "hidden_act": GELU[model.gelu],
        "layer_norm_eps": 1e-5,
        "projection_dim": model.embed,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model.embed,
        "text_config": both
        | {
            "model_type": "clip_text_model",
            "hidden_size": text.width,
            "intermediate_size": 4 * text.width,
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.layers,
            "max_position_embeddings": text.context,
            "vocab_size": text.vocabulary,
            "bos_token_id": text.vocabulary - 2,
            "eos_token_id": text.vocabulary - 1,
        },
        "vision_config": both
        | {
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": 4 * vision.width,
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.layers,
            "image_size": vision.resolution,
            "patch_size": vision.patch,
        },
    }


def processor(vision: ViTConfig) -> dict[str, Any]:
    """preprocessor_config.json: the resize, crop and colours of CLIPImageProcessor."""
    side = vision.resolution
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }


def tokenizer(text: TextConfig) -> dict[str, Any]:
    """The files of CLIPTokenizer, by name; without them it would know no word, and say nothing."""
    named, merges = vocabulary()
    start, end = "<|startoftext|>", "<|endoftext|>"
    return {
        "vocab.json": named | {start: text.vocabulary - 2, end: text.vocabulary - 1},
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": text.context,
            "do_lower_case": True,
            "bos_token": start,
            "eos_token": end,
            "pad_token": end,
            "unk_token": end,
            "errors": "replace",
        },
    }
