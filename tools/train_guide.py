#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the built-in guide and writes models/guide.gguf.

    tools/train_guide.py                   train (or go on from the checkpoint) and export
    tools/train_guide.py --export-only     export the checkpoint as it is
    tools/train_guide.py --score FILE.tsv  score the checkpoint, as exported, on a question file and list misses
    tools/train_guide.py --sample N        print N training questions and stop

Needs Debian's python3-torch, and libopenblas0-pthread, without which it is many times slower. Neither is needed to
build or run Sovereign. Everything random follows --seed and the step number, so that a run that was interrupted and
resumed equals one that was not, as far as PyTorch's own sums are deterministic.

How it learns: each step draws intents, expands and varies a question for each (tools/guide/phrases.py), and asks for
the intent's one answer. Loss is on answer tokens only. As the answers are learnt by heart early, most examples keep
only the first tokens of the answer, where the decision is made; the rest of the compute goes there.
"""
import argparse
import collections
import copy
import pathlib
import random
import sys
import time

import torch
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "guide"))

import bpe  # noqa: E402
import ggufout  # noqa: E402
import model as guide_model  # noqa: E402
import phrases as phrase_data  # noqa: E402

HELDOUT = ROOT / "tests" / "guide" / "heldout.tsv"
DEVELOPMENT = ROOT / "tools" / "guide" / "development.tsv"
OUTPUT = ROOT / "models" / "guide.gguf"

VOCAB = 3072
BPE_SAMPLE_PER_INTENT = 400
OFFTOPIC_SHARE = 0.25
HEAD_SHARE = 0.92       # examples that keep only the head of the answer
HEAD_TOKENS = 6
SYSTEM_SHARE = 0.08
EARLIER_TURN_SHARE = 0.05
BPE_DROPOUT_SHARE, BPE_DROPOUT = 0.2, 0.1
IGNORED = -100


def read_questions(path):
    """Rows of a question file: intent, question, list of key facts."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                intent, question, facts = line.rstrip("\n").split("\t")
                rows.append((intent, question, facts.split("|")))
    return rows


def check_questions(rows, phrases):
    """A key fact that its intent's answer does not hold is a mistake of ours, in the row or in the answer."""
    for intent, question, facts in rows:
        bpe.check_text(question)
        for fact in facts:
            if fact not in phrases.answers[intent]:
                raise ValueError(f"{intent}: {question}: the answer does not hold {fact!r}")


def make_tokenizer(phrases, seed):
    rng = random.Random(f"bpe {seed}")
    counts = collections.Counter()

    def add(text, weight=1):
        bpe.check_text(text)
        for piece in bpe.SPLIT.findall(text):
            counts[piece] += weight

    for name in phrases.names:
        add(phrases.answers[name], 100)
        for _ in range(BPE_SAMPLE_PER_INTENT * (8 if name == "offtopic" else 1)):
            add(phrases.question(name, rng))
    for role in ("system\n", "user\n", "assistant\n"):
        add(role, 1000)
    return bpe.Tokenizer(bpe.train(counts, VOCAB - 256 - len(bpe.SPECIALS)))


class Examples:
    """Draws training examples: token ids and targets."""

    def __init__(self, phrases, tokenizer):
        self.phrases, self.tokenizer = phrases, tokenizer
        self.topics = [name for name in phrases.names if name != "offtopic"]
        self.newline = tokenizer.encode("\n")
        self.roles = {role: [bpe.IM_START] + tokenizer.encode(role + "\n") for role in ("system", "user", "assistant")}
        self.group = None, []
        self.answers = {name: tokenizer.encode(answer) + [bpe.IM_END] for name, answer in phrases.answers.items()}

    def pick(self, rng):
        return "offtopic" if rng.random() < OFFTOPIC_SHARE else rng.choice(self.topics)

    def prompt(self, question, rng=None, drop=0.0):
        return (self.roles["user"] + self.tokenizer.encode(question, rng, drop) + [bpe.IM_END] + self.newline
                + self.roles["assistant"])

    def turn(self, rng):
        name = self.pick(rng)
        drop = BPE_DROPOUT if rng.random() < BPE_DROPOUT_SHARE else 0.0
        return self.prompt(self.phrases.question(name, rng), rng, drop), self.answers[name]

    def draw(self, rng):
        ids = []
        if rng.random() < SYSTEM_SHARE:
            text = rng.choice(self.phrases.grammar.systems)
            ids += self.roles["system"] + self.tokenizer.encode(text) + [bpe.IM_END] + self.newline
        if rng.random() < EARLIER_TURN_SHARE:
            prompt, answer = self.turn(rng)
            ids += prompt + answer + self.newline
        prompt, answer = self.turn(rng)
        if rng.random() < HEAD_SHARE:
            answer = answer[:HEAD_TOKENS]
        targets = [IGNORED] * (len(ids) + len(prompt) - 1) + answer
        return (ids + prompt + answer)[:-1], targets

    def batch(self, seed, step, size, group):
        """Batch `step`: cut from a group of batches sorted by length, so that little is padding."""
        number = step // group
        if self.group[0] != number:
            rng = random.Random(f"{seed} {number}")
            drawn = sorted((self.draw(rng) for _ in range(size * group)), key=lambda example: len(example[0]))
            batches = [drawn[first:first + size] for first in range(0, len(drawn), size)]
            rng.shuffle(batches)
            self.group = number, batches
        return pad(self.group[1][step % group])


def pad(examples):
    length = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([row + [bpe.END_OF_TEXT] * (length - len(row)) for row, _ in examples])
    targets = torch.tensor([row + [IGNORED] * (length - len(row)) for _, row in examples])
    return ids, targets


@torch.no_grad()
def exact_answers(network, examples, rows):
    """For each row, whether the greedy answer is its intent's answer, token for token.

    One pass per row suffices: the greedy text equals the answer exactly when every token of the answer is the
    likeliest one after those before it.
    """
    network.eval()
    correct = []
    for start in range(0, len(rows), 64):
        part = []
        for intent, question, _ in rows[start:start + 64]:
            prompt, answer = examples.prompt(question), examples.answers[intent]
            part.append(((prompt + answer)[:-1], [IGNORED] * (len(prompt) - 1) + answer))
        ids, targets = pad(part)
        likeliest = network.logits(network(ids)).argmax(-1)
        correct += ((likeliest == targets) | (targets == IGNORED)).all(1).tolist()
    network.train()
    return correct


@torch.no_grad()
def greedy(network, examples, question, limit=120):
    network.eval()
    ids = examples.prompt(question)
    start = len(ids)
    while len(ids) - start < limit:
        token = int(network.logits(network(torch.tensor([ids]))[:, -1]).argmax())
        if token == bpe.IM_END:
            break
        ids.append(token)
    return examples.tokenizer.decode(ids[start:])


def share(flags):
    return sum(flags) / max(1, len(flags))


def rate(step, args):
    warm = min(1.0, (step + 1) / args.warmup)
    return args.rate * warm * max(0.02, 1.0 - step / args.steps)


def save(path, state):
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def train(args, network, examples, checkpoint):
    decay = [p for p in network.parameters() if p.dim() == 2]
    plain = [p for p in network.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": args.decay},
                                   {"params": plain, "weight_decay": 0.0}], lr=args.rate, betas=(0.9, 0.98))
    average, first, spent = copy.deepcopy(network), 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
    sets = [(path.stem, read_questions(path)) for path in (DEVELOPMENT, HELDOUT)]
    began, loss_sum, tokens = time.time(), 0.0, 0
    for step in range(first, args.steps):
        torch.manual_seed(args.seed * 1000003 + step)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, args)
        ids, targets = examples.batch(args.seed, step, args.batch, 16)
        keep = targets != IGNORED
        loss = functional.cross_entropy(network.logits(network(ids)[keep]), targets[keep])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            blend = min(args.average, (step + 1) / (step + 10))
            for mean, now in zip(average.parameters(), network.parameters()):
                mean.lerp_(now, 1.0 - blend)
        loss_sum += loss.item()
        tokens += int(ids.numel())
        done = step + 1
        if done % args.every == 0 or done == args.steps:
            seconds = spent + time.time() - began
            scores = " ".join(f"{name} {share(exact_answers(average, examples, rows)):.3f}" for name, rows in sets)
            print(f"step {done} loss {loss_sum / args.every:.4f} {scores} {seconds:.0f} s, "
                  f"{tokens / (time.time() - began):.0f} tokens/s", flush=True)
            loss_sum = 0.0
            save(checkpoint, {"network": network.state_dict(), "average": average.state_dict(), "step": done,
                              "optimizer": optimizer.state_dict(), "seconds": seconds,
                              "merges": examples.tokenizer.merges})


def load_average(network, checkpoint):
    network.load_state_dict(torch.load(checkpoint)["average"])


def as_exported(network, examples, path):
    """Exports, then puts the quantized values back, so that what is scored is what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seen = ggufout.write(path, network.shape, examples.tokenizer, dict(network.named_parameters()))
    network.load_state_dict({name: torch.tensor(value) for name, value in seen.items()})


def score(network, examples, path):
    rows = read_questions(path)
    right = 0
    for intent, question, facts in rows:
        answer = greedy(network, examples, question)
        if all(fact in answer for fact in facts):
            right += 1
        else:
            print(f"{intent}\t{question}\t{answer}")
    print(f"{path}: {right} of {len(rows)} right ({100 * right / len(rows):.1f}%)")


def main():
    parser = argparse.ArgumentParser(description="Train the built-in guide and write models/guide.gguf.")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--decay", type=float, default=0.05)
    parser.add_argument("--dropout", type=float, default=0.0, help="hardly a question comes twice")
    parser.add_argument("--average", type=float, default=0.99, help="decay of the averaged weights that are exported")
    parser.add_argument("--every", type=int, default=100, help="steps between scores and checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="more pay only on idle cores")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build" / "guide", help="checkpoint folder")
    parser.add_argument("--out", type=pathlib.Path, default=OUTPUT)
    parser.add_argument("--start", type=pathlib.Path, help="checkpoint of another run: take weights and tokens from it")
    parser.add_argument("--export-only", action="store_true")
    parser.add_argument("--score", type=pathlib.Path)
    parser.add_argument("--sample", type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rows = read_questions(DEVELOPMENT) + read_questions(HELDOUT)
    phrases = phrase_data.Phrases(phrase_data.canonical(question) for _, question, _ in rows)
    check_questions(rows, phrases)
    if args.sample:
        rng = random.Random(args.seed)
        for _ in range(args.sample):
            name = rng.choice(phrases.names)
            print(f"{name}\t{phrases.question(name, rng)}")
        return
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / "checkpoint.pt"
    earlier = checkpoint if checkpoint.exists() else args.start
    tokenizer = bpe.Tokenizer(torch.load(earlier)["merges"]) if earlier else make_tokenizer(phrases, args.seed)
    examples = Examples(phrases, tokenizer)
    network = guide_model.Guide(guide_model.Shape(len(tokenizer.tokens)), args.dropout)
    print(f"{sum(p.numel() for p in network.parameters())} parameters, {len(tokenizer.tokens)} tokens, "
          f"{len(phrases.names)} intents", flush=True)
    if args.start and not checkpoint.exists():
        load_average(network, args.start)
    if not args.export_only and not args.score:
        train(args, network, examples, checkpoint)
    load_average(network, checkpoint)
    as_exported(network, examples, args.work / "scored.gguf" if args.score else args.out)
    if args.score:
        score(network, examples, args.score)


if __name__ == "__main__":
    main()
