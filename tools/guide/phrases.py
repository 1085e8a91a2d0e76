# SPDX-License-Identifier: Apache-2.0
"""Questions for the guide: expands the patterns of questions.txt and offtopic.txt and varies them.

A pattern is parsed once into a small tree; a question is one random walk through it. Variation (casing, marks,
openings, synonyms, contractions, typing slips, missing words) is applied afterwards, so that the model sees very
few questions twice and has to learn which words decide.
"""
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent

PROPER = {
    "i": "I", "i'm": "I'm", "i'd": "I'd", "i'll": "I'll", "api": "API", "gpu": "GPU", "cpu": "CPU", "json": "JSON",
    "gguf": "GGUF", "cors": "CORS", "sse": "SSE", "http": "HTTP", "bpe": "BPE", "kv": "KV", "python": "Python",
    "windows": "Windows", "linux": "Linux", "ubuntu": "Ubuntu", "debian": "Debian", "openai": "OpenAI",
    "sovereign": "Sovereign", "javascript": "JavaScript", "cuda": "CUDA", "nvidia": "NVIDIA", "isa": "ISA",
    "avx2": "AVX2", "avx512": "AVX512", "ram": "RAM", "url": "URL", "ihsan": "Ihsan", "pbft": "PBFT",
    "llama": "Llama", "mistral": "Mistral", "qwen": "Qwen", "prometheus": "Prometheus", "eos": "EOS", "llm": "LLM",
    "cli": "CLI", "post": "POST", "macos": "macOS", "mac": "Mac", "ollama": "Ollama", "node": "Node", "chatgpt": "ChatGPT",
    "q4_k_m": "Q4_K_M", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k": "Q4_K", "q6_k": "Q6_K", "bf16": "BF16", "f16": "F16",
    "apache": "Apache", "ctrl-c": "Ctrl-C", "english": "English", "france": "France", "paris": "Paris",
}
SHORTER = [("what is", "what's"), ("do not", "don't"), ("does not", "doesn't"), ("cannot", "can't"), ("i am", "i'm"),
           ("i would", "i'd"), ("how is", "how's"), ("it is", "it's"), ("is not", "isn't"), ("who is", "who's"),
           ("will not", "won't"), ("where is", "where's"), ("i have", "i've"), ("you are", "you're"),
           ("that is", "that's"), ("let us", "let's")]
FILLERS = {"the", "a", "an", "do", "does", "is", "are", "i", "to", "please", "of", "can", "it", "me", "my", "in", "with",
           "for", "you", "on"}
KEYS = "abcdefghijklmnopqrstuvwxyz"


class Grammar:
    """Macros and word lists, and the parser of patterns."""

    def __init__(self):
        self.macros = {}
        self.lists = {}
        self.synonyms = {}
        self.openings = []
        self.closings = []
        self.systems = []
        self.cache = {}
        for line in read_lines(HERE / "words.txt"):
            mark, rest = line[0], line[1:].strip()
            if mark == "$":
                name, pattern = rest.split("=", 1)
                self.macros[name.strip()] = pattern.strip()
            elif mark == "~":
                group = [word.strip() for word in rest.split(" / ")]
                for word in group:
                    self.synonyms.setdefault(word, []).extend(w for w in group if w != word)
            else:
                {"<": self.openings, ">": self.closings, "!": self.systems}[mark].append(rest)

    def parse(self, pattern):
        """A pattern as a tree: str, ("seq", parts), ("alt", branches) or ("list", name)."""
        if pattern not in self.cache:
            tree, end = self._alternatives(pattern, 0)
            if end != len(pattern):
                raise ValueError(f"unbalanced pattern at {end}: {pattern}")
            self.cache[pattern] = tree
        return self.cache[pattern]

    def _alternatives(self, text, pos):
        branches, parts, literal = [], [], ""

        def flush():
            nonlocal literal
            if literal:
                parts.append(literal)
                literal = ""

        while pos < len(text) and text[pos] not in ")]":
            char = text[pos]
            if char in "([":
                flush()
                inner, pos = self._alternatives(text, pos + 1)
                if pos >= len(text) or text[pos] != {"(": ")", "[": "]"}[char]:
                    raise ValueError(f"unclosed {char}: {text}")
                parts.append(inner if char == "(" else ("alt", [inner, ""]))
                pos += 1
            elif char == "|":
                flush()
                branches.append(("seq", parts))
                parts = []
                pos += 1
            elif char == "$":
                flush()
                name = re.match(r"[a-z_]+", text[pos + 1:]).group()
                pos += 1 + len(name)
                body = self.macros[name]
                if pos < len(text) and text[pos] == "{":
                    depth, start = 1, pos + 1
                    pos += 1
                    while depth:
                        depth += {"{": 1, "}": -1}.get(text[pos], 0)
                        pos += 1
                    body = body.replace("{}", "(" + text[start:pos - 1] + ")")
                parts.append(self.parse(body))
            elif char == "%" and text[pos + 1:pos + 2].isalpha():
                flush()
                name = re.match(r"[a-z]+", text[pos + 1:]).group()
                pos += 1 + len(name)
                while name not in self.lists:
                    name, literal = name[:-1], name[-1] + literal
                parts.append(("list", name))
            else:
                literal += char
                pos += 1
        flush()
        branches.append(("seq", parts))
        return (branches[0] if len(branches) == 1 else ("alt", branches)), pos

    def walk(self, tree, rng):
        if isinstance(tree, str):
            return tree
        kind, value = tree
        if kind == "seq":
            return "".join(self.walk(part, rng) for part in value)
        if kind == "alt":
            return self.walk(rng.choice(value), rng)
        return rng.choice(self.lists[value])

    def expand(self, pattern, rng):
        return " ".join(self.walk(self.parse(pattern), rng).split()).replace(" ,", ",")


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]


class Phrases:
    """All intents: name, answer and patterns; "offtopic" is one of them."""

    def __init__(self, forbidden=()):
        self.grammar = Grammar()
        self.answers, self.patterns = {}, {}
        self.forbidden = set(forbidden)
        name = None
        for line in read_lines(HERE / "questions.txt"):
            if line[0] == "@":
                name = line[1:].strip()
                self.patterns[name] = []
            elif line[0] == "=":
                self.answers[name] = line[1:].strip()
            else:
                self.patterns[name].append(line[1:].strip())
        self.patterns["offtopic"] = []
        for line in read_lines(HERE / "offtopic.txt"):
            if line[0] == "=":
                self.answers["offtopic"] = line[1:].strip()
            elif line[0] == "%":
                key, words = line[1:].split(":", 1)
                self.grammar.lists[key.strip()] = [w.strip() for w in words.split(",")]
            else:
                self.patterns["offtopic"].append(line[1:].strip())
        self.names = sorted(self.patterns)
        for patterns in self.patterns.values():
            for pattern in patterns:
                self.grammar.parse(pattern)

    def question(self, name, rng):
        """One varied question of an intent, never one of the forbidden (held-out) ones."""
        while True:
            plain = self.grammar.expand(rng.choice(self.patterns[name]), rng)
            text = vary(self.grammar, plain, rng)
            if text and canonical(text) not in self.forbidden and canonical(plain) not in self.forbidden:
                return text


def canonical(text):
    """Lower case, letters and digits only: two questions equal here count as the same phrasing."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def slip(word, rng):
    """One typing slip inside a word: swapped, missing, doubled or wrong letter."""
    pos = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return word[:pos] + word[pos + 1] + word[pos] + word[pos + 2:]
    if kind == 1:
        return word[:pos] + word[pos + 1:]
    if kind == 2:
        return word[:pos] + word[pos] + word[pos:]
    return word[:pos] + rng.choice(KEYS) + word[pos + 1:]


def exchange(words, grammar, rng, chance):
    """Synonyms, one word at a time."""
    return [rng.choice(grammar.synonyms[w]) if w in grammar.synonyms and rng.random() < chance else w for w in words]


def vary(grammar, text, rng):
    if rng.random() < 0.35:
        for long, short in SHORTER:
            text = re.sub(rf"\b{long}\b", short, text)
    words = exchange(text.split(), grammar, rng, 0.12 if rng.random() < 0.6 else 0.0)
    if len(words) > 3 and rng.random() < 0.25:
        words = [w for w in words if w not in FILLERS or rng.random() < 0.6] or words
    if len(words) > 4 and rng.random() < 0.1:
        del words[rng.randrange(len(words))]
    if rng.random() < 0.12:
        long = [i for i, w in enumerate(words) if len(w) > 3 and w.isalpha()]
        if long:
            at = rng.choice(long)
            words[at] = slip(words[at], rng)
    text = " ".join(words)
    if len(words) > 1:
        if rng.random() < 0.16:
            text = rng.choice(grammar.openings) + " " + text
        if rng.random() < 0.1:
            text = text + rng.choice([" ", ", "]) + rng.choice(grammar.closings)
    return finish(text, rng)


def finish(text, rng):
    """Casing and the final mark."""
    style = rng.random()
    if style < 0.55:
        words = [PROPER.get(w, w) if rng.random() < 0.9 else w for w in text.split()]
        text = " ".join(words)
        if text[:1].isalpha():
            text = text[0].upper() + text[1:]
    elif style < 0.58:
        text = text.title()
    elif style < 0.60:
        text = text.upper()
    mark = rng.random()
    if mark < 0.45:
        return text + "?"
    if mark < 0.60:
        return text + "."
    if mark < 0.64:
        return text + rng.choice(["!", "??", "...", " ?", "?!", " !"])
    return text
