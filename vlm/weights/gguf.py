"""Unpacks a GGUF file of the Llama family into a Hugging Face folder: weights, configuration, tokenizer, chat template.

The file is read by the package gguf, of the format's authors. transformers reads GGUF too, but three times over, and keeps
the weights packed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# How the file marks words that are no text; they become special tokens.
_CONTROL = 3
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def unpack_llama(source: Path, target: Path) -> None:
    """Writes the Llama model of a GGUF file as a Hugging Face folder with weights in bfloat16.

    Args:
        source: the GGUF file; its tokenizer must be byte-level BPE ("gpt2").
        target: folder to be made.

    Raises:
        ValueError, IndexError, KeyError: the file is damaged, or of another family.
    """
    from gguf import GGUFReader

    file = GGUFReader(source)
    values = {name: field.contents() for name, field in file.fields.items()}
    if values["general.architecture"] != "llama" or values["tokenizer.ggml.model"] != "gpt2":
        raise ValueError("it holds no Llama model with a byte-level tokenizer")
    weights = _weights(file.tensors, values)
    config, tokenizer = _config(values, tied="lm_head.weight" not in weights), _tokenizer(values)
    target.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    _generation_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)


def _weights(tensors: list[Any], values: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import torch
    from gguf.quants import dequantize

    heads = values["llama.attention.head_count"]
    key_heads = values.get("llama.attention.head_count_kv", heads)
    weights = {}
    for tensor in tensors:
        plain = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist())))
        # Unpacked weights are new; plain ones would be a view of the file, which torch does not like.
        weight = torch.from_numpy(np.require(plain, np.float32, "W"))
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            weight = _unrotate(weight, heads if ".attn_q." in tensor.name else key_heads)
        weights[_hugging_face_name(tensor.name)] = weight.to(torch.bfloat16).contiguous()
    return weights


def _unrotate(weight: Any, heads: int) -> Any:
    """Puts the rows of a query or key projection back from pairs (x0, y0, x1, y1) to halves (x0, x1, y0, y1).

    The file stores them for rotary embedding of neighbouring rows, Hugging Face rotates the first half with the second.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _hugging_face_name(name: str) -> str:
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{_LAYER_NAMES[layer[2]]}.weight"
    return f"{_NAMES[name.removesuffix('.weight')]}.weight"


def _config(values: dict[str, Any], tied: bool) -> Any:
    from transformers import LlamaConfig

    heads = values["llama.attention.head_count"]
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        vocab_size=len(values["tokenizer.ggml.tokens"]),
        hidden_size=values["llama.embedding_length"],
        intermediate_size=values["llama.feed_forward_length"],
        num_hidden_layers=values["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=values.get("llama.attention.head_count_kv", heads),
        head_dim=values.get("llama.rope.dimension_count", values["llama.embedding_length"] // heads),
        max_position_embeddings=values["llama.context_length"],
        rms_norm_eps=values["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": values.get("llama.rope.freq_base", 10000.0)},
        tie_word_embeddings=tied,
        bos_token_id=values["tokenizer.ggml.bos_token_id"],
        eos_token_id=values["tokenizer.ggml.eos_token_id"],
        pad_token_id=values.get("tokenizer.ggml.padding_token_id"),
    )


def _generation_config(config: Any) -> Any:
    from transformers import GenerationConfig

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(config, name) for name in names})


def _tokenizer(values: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words: list[str] = values["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in values["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if values.get("tokenizer.ggml.pre") == "smollm":
        # By that name the file says that digits are split one by one before the byte-level step, as in training.
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    core.decoder = decoders.ByteLevel()
    kinds = values["tokenizer.ggml.token_type"]
    special = [word for word, kind in zip(words, kinds, strict=True) if kind == _CONTROL]
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {ours: values.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in named.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        chat_template=values["tokenizer.chat_template"],
        model_max_length=values["llama.context_length"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **{ours: words[number] for ours, number in ids.items() if number is not None},
    )
