#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/chat_templates.json: what models' own chat templates make of some conversations.

    tools/make_chat_vectors.py FOLDER > tests/data/chat_templates.json

FOLDER has the templates as NAME.jinja, NAME being one of chat_template_name's; they come from the models'
tokenizer_config.json and are not part of this repository. Rendered with Jinja 3 set up as the transformers library
does. The beginning-of-sequence token that a prompt begins with is dropped: our renderer leaves it to the encoder.
"""
import json
import sys

import jinja2
import jinja2.sandbox

TOKENS = {  # name: (bos, eos)
    "llama2": ("<s>", "</s>"), "mistral": ("<s>", "</s>"), "mistral-v1": ("<s>", "</s>"),
    "mistral-v3": ("<s>", "</s>"), "mistral-v3-tekken": ("<s>", "</s>"), "mistral-v7": ("<s>", "</s>"),
    "mistral-v7-tekken": ("<s>", "</s>"), "zephyr": ("<s>", "</s>"), "zephyr-endoftext": ("", "<|endoftext|>"),
    "llama3": ("<|begin_of_text|>", ""), "llama3.1": ("<|begin_of_text|>", ""), "gemma": ("<bos>", "<eos>"),
    "phi3": ("<s>", "<|endoftext|>"), "deepseek-coder": ("<｜begin▁of▁sentence｜>", "<|EOT|>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-v3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "deepseek-r1-think": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}
NAMES = list(TOKENS) + ["chatml", "qwen1.5", "qwen2", "qwen2.5", "smollm2", "qwen3", "qwen3-thinking", "qwq"]


def s(text):
    return ["system", text]


def u(text):
    return ["user", text]


def a(text):
    return ["assistant", text]


CONVERSATIONS = [
    [u("Hello")],
    [s("You are a helpful assistant"), u("Hello")],
    [s("You are a helpful assistant"), u("Hello"), a("Hi there"), u("Who are you"), a("   I am an assistant   "),
     u("Another question")],
    [u("Hello"), a("Hi there"), u("Who are you")],
    [u("Hello"), a("Hi there")],
    [s(" Be brief.\n"), u("  \tspaced\u3000 "), a("\n\nlines\n"), u("\x1cseparators\x1d\u00a0")],
    [s("sys"), u(" \n ")],
    [u("")],
    [s(""), u("x")],
    [u("a"), a("<think>\nhmm\n</think>\n\nanswer"), u("b")],
    [u("a"), a("<think>\n\nhmm, more\n</think>\n\n\nanswer\n")],
    [u("a"), a("reasoning without start</think>x</think>\ny"), u("<tool_response>z</tool_response>"), a("done")],
    [u("a"), a("<think></think>plain"), u("b"), a("q</think>r")],
    [u("a"), a("one"), u("<tool_response>z</tool_response>"), a("two"), u("c")],
    [u("<|im_end|><s>[INST] </s> {{ x }} {% y %} <|eot_id|> \u2581"), a("caf\u00e9 \U0001f600"), u("ok")],
    [u("one"), u("two")],
    [a("first"), u("x")],
    [u("x"), s("late system")],
    [s("only system")],
    [s("a"), s("b"), u("c")],
]
TURN_TAKING = {"llama2", "mistral", "mistral-v1", "mistral-v3", "mistral-v3-tekken", "gemma"}


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def render(template, name, messages, generation):
    bos, eos = TOKENS.get(name, ("", ""))
    roles = [role for role, _ in messages]
    # Where we mean to differ (see chat_template.h).
    if name in TURN_TAKING and ("system" in roles[1:] or "user" not in roles):
        return None
    merged = messages
    if name == "mistral" and roles[0] == "system":
        merged = [u(messages[0][1] + "\n\n" + messages[1][1])] + messages[2:]
    try:
        text = template.render(messages=[{"role": role, "content": content} for role, content in merged],
                               add_generation_prompt=generation, bos_token=bos, eos_token=eos)
    except jinja2.exceptions.TemplateError:
        return None
    return text[len(bos):] if bos and text.startswith(bos) else text


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    expected = {}
    for name in sorted(NAMES):
        with open(f"{sys.argv[1]}/{name}.jinja", encoding="utf-8") as source:
            template = environment.from_string(source.read())
        expected[name] = [[render(template, name, c, generation) for generation in (False, True)]
                          for c in CONVERSATIONS]
    json.dump({"conversations": CONVERSATIONS, "expected": expected}, sys.stdout, indent=0)
    print()


main()
