# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE with the "gpt-2" pre-tokenizer: a trainer and an encoder.

The split pattern is GPT-2's, written for Python's `re`. It agrees with the PCRE2 form on letters, ASCII digits and
punctuation; the training text holds nothing else (check_text refuses it), so the vocabulary is exact.
"""
import collections
import re

SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, IM_START, IM_END = 0, 1, 2


def byte_symbols():
    """GPT-2's printable stand-in for each byte."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


BYTE_SYMBOL = byte_symbols()
SYMBOL_BYTE = {symbol: byte for byte, symbol in BYTE_SYMBOL.items()}


def check_text(text):
    """Refuses characters on which Python's and PCRE2's classes may differ."""
    for char in text:
        if not (char.isascii() or char.isalpha()):
            raise ValueError(f"character {char!r} is not a letter or ASCII in {text!r}")


def symbols(piece):
    return [BYTE_SYMBOL[byte] for byte in piece.encode("utf-8")]


def train(counts, merge_count):
    """Merges, most frequent pair first (ties: the smaller pair), from a Counter of pre-token pieces."""
    words = [(symbols(piece), count) for piece, count in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for index, (word, count) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += count
            where[pair].add(index)
    merges = []
    while len(merges) < merge_count and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        for index in where.pop(best):
            word, count = words[index]
            for pair in zip(word, word[1:]):
                pairs[pair] -= count
                if pairs[pair] <= 0:
                    del pairs[pair]
            merged = merge_pair(word, best)
            words[index] = (merged, count)
            for pair in zip(merged, merged[1:]):
                pairs[pair] += count
                where[pair].add(index)
    return merges


def merge_pair(word, pair):
    out, pos = [], 0
    while pos < len(word):
        if pos + 1 < len(word) and (word[pos], word[pos + 1]) == pair:
            out.append(word[pos] + word[pos + 1])
            pos += 2
        else:
            out.append(word[pos])
            pos += 1
    return out


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self.tokens = SPECIALS + [BYTE_SYMBOL[b] for b in range(256)] + [a + b for a, b in self.merges]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.cache = {}

    def encode(self, text, rng=None, drop=0.0):
        """Token ids. With a drop chance, merges are left out at random (BPE dropout, for training only)."""
        out = []
        for piece in SPLIT.findall(text):
            if drop:
                out += self._piece(piece, rng, drop)
            else:
                if piece not in self.cache:
                    self.cache[piece] = self._piece(piece, None, 0.0)
                out += self.cache[piece]
        return out

    def _piece(self, piece, rng, drop):
        word = symbols(piece)
        while len(word) > 1:
            known = [self.rank[pair] for pair in zip(word, word[1:])
                     if pair in self.rank and not (drop and rng.random() < drop)]
            if not known:
                break
            word = merge_pair(word, self.merges[min(known)])
        return [self.ids[symbol] for symbol in word]

    def decode(self, ids):
        data = bytearray()
        for index in ids:
            if index >= len(SPECIALS):
                data += bytes(SYMBOL_BYTE[symbol] for symbol in self.tokens[index])
        return data.decode("utf-8", "replace")
