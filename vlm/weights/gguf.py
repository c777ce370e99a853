"""Unpacks a GGUF file of the Llama family into a Hugging Face folder: weights, configuration, tokenizer, chat template.

transformers reads GGUF too, but walks the file three times, string by string: some 20 s where this takes 3. The format
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a header, key-value pairs, a table of tensors, their data.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
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


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file: its name there, shape (rows first), type of packing, and where its bytes begin."""

    name: str
    shape: tuple[int, ...]
    packing: int
    start: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file that was read: key-value pairs, tensor table, and the bytes."""

    values: dict[str, Any]
    tensors: list[GgufTensor]
    data: bytes

    def weight(self, tensor: GgufTensor) -> np.ndarray:
        """A tensor's weights as float32, in its shape."""
        import numpy as np
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        packing = GGMLQuantizationType(tensor.packing)
        per_block, block_bytes = GGML_QUANT_SIZES[packing]
        row_bytes = tensor.shape[-1] // per_block * block_bytes
        rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        packed = np.frombuffer(self.data, dtype=np.uint8, count=rows * row_bytes, offset=tensor.start)
        # Unpacked weights are new; plain ones would be a view of the file, which torch does not like.
        return np.require(dequantize(packed.reshape(rows, row_bytes), packing).reshape(tensor.shape), requirements="W")


class _Reader:
    """Walks through the bytes of a file's header."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def string(self) -> str:
        (length,) = self.take("Q")
        start, self.place = self.place, self.place + length
        if self.place > len(self.data):
            raise ValueError("the file ends inside a string")
        return self.data[start : self.place].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.take("IQ")
            if item in _SCALARS:
                return list(self.take(f"{count}{_SCALARS[item]}"))
            return [self.value(item) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"a value has the unknown type {kind}")
        return self.take(_SCALARS[kind])[0]


def read_gguf(path: Path) -> GgufFile:
    """Reads a GGUF file (version 2 or 3).

    Raises:
        ValueError, struct.error: it is none, or it ends too early.
    """
    data = path.read_bytes()
    reader = _Reader(data)
    magic, version, tensors, values = reader.take("4sIQQ")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it does not begin like a GGUF file of version 2 or 3")
    pairs = {}
    for _ in range(values):
        key = reader.string()
        (kind,) = reader.take("I")
        pairs[key] = reader.value(kind)
    table = []
    for _ in range(tensors):
        name = reader.string()
        (dimensions,) = reader.take("I")
        shape = reader.take(f"{dimensions}Q")
        packing, offset = reader.take("IQ")
        table.append((name, tuple(reversed(shape)), packing, offset))
    alignment = pairs.get("general.alignment", 32)
    start = -(-reader.place // alignment) * alignment
    return GgufFile(pairs, [GgufTensor(n, s, p, start + o) for n, s, p, o in table], data)


def unpack_llama(source: Path, target: Path) -> None:
    """Writes the Llama model of a GGUF file as a Hugging Face folder with weights in bfloat16.

    Args:
        source: the GGUF file; its tokenizer must be byte-level BPE ("gpt2").
        target: folder to be made.

    Raises:
        ValueError, struct.error, KeyError: the file is damaged, or of another family.
    """
    file = read_gguf(source)
    if file.values["general.architecture"] != "llama" or file.values["tokenizer.ggml.model"] != "gpt2":
        raise ValueError("it holds no Llama model with a byte-level tokenizer")
    weights = _weights(file)
    config, tokenizer = _config(file), _tokenizer(file)
    target.mkdir(parents=True)
    from safetensors.torch import save_file

    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    _generation_config(config).save_pretrained(target)
    tokenizer.save_pretrained(target)


def _weights(file: GgufFile) -> dict[str, Any]:
    import torch

    heads = file.values["llama.attention.head_count"]
    key_heads = file.values.get("llama.attention.head_count_kv", heads)
    weights = {}
    for tensor in file.tensors:
        weight = torch.from_numpy(file.weight(tensor))
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


def _config(file: GgufFile) -> Any:
    from transformers import LlamaConfig

    values = file.values
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
        tie_word_embeddings=not any(tensor.name == "output.weight" for tensor in file.tensors),
        bos_token_id=values["tokenizer.ggml.bos_token_id"],
        eos_token_id=values["tokenizer.ggml.eos_token_id"],
        pad_token_id=values.get("tokenizer.ggml.padding_token_id"),
    )


def _generation_config(config: Any) -> Any:
    from transformers import GenerationConfig

    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(config, name) for name in names})


def _tokenizer(file: GgufFile) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    values = file.values
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
