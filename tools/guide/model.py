# SPDX-License-Identifier: Apache-2.0
"""The guide's network: the `llama` architecture in PyTorch, as the GGUF file describes it.

RMS norm, grouped-query attention with interleaved rotary pairs (2i, 2i+1) as GGUF's `llama` expects, so that the
exported q and k rows need no permutation, SwiGLU, and the output tied to the token embedding.
"""
import math

import torch
from torch import nn
from torch.nn import functional

CONTEXT = 512
ROPE_BASE = 10000.0
NORM_EPS = 1e-5


class Shape:
    def __init__(self, vocab, dim=192, layers=4, heads=6, kv_heads=2, ffn=512):
        self.vocab, self.dim, self.layers = vocab, dim, layers
        self.heads, self.kv_heads, self.ffn = heads, kv_heads, ffn
        self.head_dim = dim // heads


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPS) * self.weight


def rotate(x, cos, sin):
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Layer(nn.Module):
    def __init__(self, shape, dropout):
        super().__init__()
        self.shape = shape
        kv_dim = shape.kv_heads * shape.head_dim
        self.attn_norm, self.ffn_norm = Norm(shape.dim), Norm(shape.dim)
        self.attn_q = nn.Linear(shape.dim, shape.dim, bias=False)
        self.attn_k = nn.Linear(shape.dim, kv_dim, bias=False)
        self.attn_v = nn.Linear(shape.dim, kv_dim, bias=False)
        self.attn_output = nn.Linear(shape.dim, shape.dim, bias=False)
        self.ffn_gate = nn.Linear(shape.dim, shape.ffn, bias=False)
        self.ffn_up = nn.Linear(shape.dim, shape.ffn, bias=False)
        self.ffn_down = nn.Linear(shape.ffn, shape.dim, bias=False)
        self.dropout = dropout

    def forward(self, x, cos, sin, mask):
        batch, length, _ = x.shape
        shape = self.shape
        h = self.attn_norm(x)
        q = self.attn_q(h).view(batch, length, shape.heads, shape.head_dim).transpose(1, 2)
        k = self.attn_k(h).view(batch, length, shape.kv_heads, shape.head_dim).transpose(1, 2)
        v = self.attn_v(h).view(batch, length, shape.kv_heads, shape.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = shape.heads // shape.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = q @ k.transpose(-1, -2) / math.sqrt(shape.head_dim) + mask
        h = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, shape.dim)
        x = x + functional.dropout(self.attn_output(h), self.dropout, self.training)
        h = self.ffn_norm(x)
        h = self.ffn_down(functional.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return x + functional.dropout(h, self.dropout, self.training)


class Guide(nn.Module):
    def __init__(self, shape, dropout=0.1):
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.token_embd = nn.Embedding(shape.vocab, shape.dim)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.output_norm = Norm(shape.dim)
        angle = torch.arange(CONTEXT)[:, None] * ROPE_BASE ** (
            -torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = 0.02 if name.startswith("token") else 1 / math.sqrt(weight.shape[1])
                if "output" in name or "ffn_down" in name:
                    std /= math.sqrt(2 * shape.layers)
                nn.init.normal_(weight, std=std)

    def forward(self, ids):
        """Hidden states after the last norm; logits() turns chosen rows of them into logits."""
        length = ids.shape[1]
        x = functional.dropout(self.token_embd(ids), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, self.cos[:length], self.sin[:length], self.mask[:length, :length])
        return self.output_norm(x)

    def logits(self, hidden):
        return hidden @ self.token_embd.weight.t()
