# SPDX-License-Identifier: Apache-2.0
"""Writes the guide as GGUF version 3: matrices in Q8_0, norms in F32."""
import struct

import numpy as np

import bpe
import model as guide_model

U32, F32_KIND, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
TYPE_F32, TYPE_Q8_0 = 0, 8
ALIGNMENT = 32
BLOCK = 32
FILE_TYPE_Q8_0 = 7
TOKEN_NORMAL, TOKEN_CONTROL = 1, 3

TEMPLATE = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
            "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def text(value):
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    packers = {U32: lambda v: struct.pack("<I", v), F32_KIND: lambda v: struct.pack("<f", v),
               BOOL: lambda v: struct.pack("<?", v), STRING: text}
    return text(key) + struct.pack("<I", kind) + packers[kind](value)


def array(key, kind, values):
    body = b"".join(text(v) for v in values) if kind == STRING else struct.pack(f"<{len(values)}i", *values)
    return text(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) + body


def q8_0(matrix):
    """Blocks of 32: a half-precision scale, then 32 signed bytes. Returns the bytes and the values they stand for."""
    blocks = matrix.astype(np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1) / np.float32(127)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    quants = np.rint(blocks * inverse[:, None]).astype(np.int8)
    half = scale.astype(np.float16)
    packed = np.concatenate((half[:, None].view(np.uint8), quants.view(np.uint8)), 1)
    values = (quants.astype(np.float32) * half.astype(np.float32)[:, None]).reshape(matrix.shape)
    return packed.tobytes(), values


def gguf_name(name):
    """layers.0.attn_q.weight -> blk.0.attn_q.weight"""
    return name.replace("layers.", "blk.")


def metadata(shape, tokenizer):
    tokens = tokenizer.tokens
    kinds = [TOKEN_CONTROL if t in bpe.SPECIALS else TOKEN_NORMAL for t in tokens]
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "Sovereign Guide"),
        pair("general.description", STRING, "A tiny guide that answers questions about Sovereign"),
        pair("general.license", STRING, "apache-2.0"),
        pair("general.alignment", U32, ALIGNMENT),
        pair("general.file_type", U32, FILE_TYPE_Q8_0),
        pair("general.quantization_version", U32, 2),
        pair("llama.context_length", U32, guide_model.CONTEXT),
        pair("llama.embedding_length", U32, shape.dim),
        pair("llama.block_count", U32, shape.layers),
        pair("llama.feed_forward_length", U32, shape.ffn),
        pair("llama.attention.head_count", U32, shape.heads),
        pair("llama.attention.head_count_kv", U32, shape.kv_heads),
        pair("llama.attention.layer_norm_rms_epsilon", F32_KIND, guide_model.NORM_EPS),
        pair("llama.rope.dimension_count", U32, shape.head_dim),
        pair("llama.rope.freq_base", F32_KIND, guide_model.ROPE_BASE),
        pair("llama.vocab_size", U32, len(tokens)),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "gpt-2"),
        array("tokenizer.ggml.tokens", STRING, tokens),
        array("tokenizer.ggml.token_type", I32, kinds),
        array("tokenizer.ggml.merges", STRING, [f"{a} {b}" for a, b in tokenizer.merges]),
        pair("tokenizer.ggml.bos_token_id", U32, bpe.END_OF_TEXT),
        pair("tokenizer.ggml.eos_token_id", U32, bpe.IM_END),
        pair("tokenizer.ggml.padding_token_id", U32, bpe.END_OF_TEXT),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.ggml.add_eos_token", BOOL, False),
        pair("tokenizer.chat_template", STRING, TEMPLATE),
    ]


def write(path, shape, tokenizer, weights):
    """Writes the file; returns the weights as the file's readers will see them."""
    seen, infos, blobs, offset = {}, [], [], 0
    for name, value in weights.items():
        value = value.detach().numpy()
        if value.ndim == 2:
            kind, (blob, seen[name]) = TYPE_Q8_0, q8_0(value)
        else:
            kind, blob, seen[name] = TYPE_F32, value.astype("<f4").tobytes(), value
        dims = value.shape[::-1]
        infos.append(text(gguf_name(name)) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
        blob += b"\0" * (-len(blob) % ALIGNMENT)
        blobs.append(blob)
        offset += len(blob)
    pairs = metadata(shape, tokenizer)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    head += b"\0" * (-len(head) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(head)
        for blob in blobs:
            file.write(blob)
    return seen
