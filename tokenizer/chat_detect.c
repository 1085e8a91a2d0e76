/* SPDX-License-Identifier: Apache-2.0 */
/* Recognising a chat template by what its Jinja text says, and the names of templates. */
#include <string.h>

#include "tokenizer/chat_template.h"

static const char *const names[CHAT_TEMPLATES] = {
    [CHAT_TEMPLATE_CHATML] = "chatml",
    [CHAT_TEMPLATE_LLAMA2] = "llama2",
    [CHAT_TEMPLATE_LLAMA3] = "llama3",
    [CHAT_TEMPLATE_MISTRAL] = "mistral",
    [CHAT_TEMPLATE_ZEPHYR] = "zephyr",
    [CHAT_TEMPLATE_GEMMA] = "gemma",
    [CHAT_TEMPLATE_PHI3] = "phi3",
    [CHAT_TEMPLATE_DEEPSEEK] = "deepseek",
    [CHAT_TEMPLATE_QWEN15] = "qwen1.5",
    [CHAT_TEMPLATE_QWEN2] = "qwen2",
    [CHAT_TEMPLATE_QWEN25] = "qwen2.5",
    [CHAT_TEMPLATE_SMOLLM2] = "smollm2",
    [CHAT_TEMPLATE_QWEN3] = "qwen3",
    [CHAT_TEMPLATE_QWEN3_THINKING] = "qwen3-thinking",
    [CHAT_TEMPLATE_QWQ] = "qwq",
    [CHAT_TEMPLATE_LLAMA31] = "llama3.1",
    [CHAT_TEMPLATE_MISTRAL_V1] = "mistral-v1",
    [CHAT_TEMPLATE_MISTRAL_V3] = "mistral-v3",
    [CHAT_TEMPLATE_MISTRAL_V3_TEKKEN] = "mistral-v3-tekken",
    [CHAT_TEMPLATE_MISTRAL_V7] = "mistral-v7",
    [CHAT_TEMPLATE_MISTRAL_V7_TEKKEN] = "mistral-v7-tekken",
    [CHAT_TEMPLATE_ZEPHYR_ENDOFTEXT] = "zephyr-endoftext",
    [CHAT_TEMPLATE_DEEPSEEK_CODER] = "deepseek-coder",
    [CHAT_TEMPLATE_DEEPSEEK_V3] = "deepseek-v3",
    [CHAT_TEMPLATE_DEEPSEEK_R1] = "deepseek-r1",
    [CHAT_TEMPLATE_DEEPSEEK_R1_THINK] = "deepseek-r1-think",
};

const char *chat_template_name(enum chat_template t)
{
    return (unsigned)t < CHAT_TEMPLATES ? names[t] : "unknown";
}

bool chat_template_by_name(const char *name, enum chat_template *out)
{
    for (int t = 0; t < CHAT_TEMPLATES; t++) {
        if (strcmp(names[t], name) == 0) {
            *out = (enum chat_template)t;
            return true;
        }
    }
    return false;
}

struct text {
    const char *data;
    size_t length;
};

static bool has(struct text t, const char *part)
{
    return memmem(t.data, t.length, part, strlen(part)) != NULL;
}

/*
 * What follows `before` and a line break, which in a string of a template may be its escape; or
 * NULL.
 */
static const char *line_after(struct text t, const char *before, size_t *length)
{
    const char *found = memmem(t.data, t.length, before, strlen(before));
    while (found != NULL) {
        const char *at = found + strlen(before);
        size_t rest = t.length - (size_t)(at - t.data);
        size_t line = rest != 0 && at[0] == '\n'              ? 1
                      : rest > 1 && memcmp(at, "\\n", 2) == 0 ? 2
                                                              : 0;
        *length = rest - line;
        if (line != 0) return at + line;
        found = memmem(at, rest, before, strlen(before));
    }
    return NULL;
}

static bool has_line(struct text t, const char *before, const char *after)
{
    size_t length;
    for (const char *line; (line = line_after(t, before, &length)) != NULL;) {
        if (length >= strlen(after) && memcmp(line, after, strlen(after)) == 0) return true;
        t = (struct text){line, length};
    }
    return false;
}

/* A system message of the template's own is written into its text. */
static enum chat_template detect_default_system(struct text t, bool *known)
{
    static const struct {
        const char *text;
        enum chat_template t;
    } defaults[] = {
        {"You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<",
         CHAT_TEMPLATE_QWEN25},
        {"You are a helpful AI assistant named SmolLM, trained by Hugging Face<",
         CHAT_TEMPLATE_SMOLLM2},
        {"You are a helpful assistant.<", CHAT_TEMPLATE_QWEN2},
        {"You are a helpful assistant<", CHAT_TEMPLATE_QWEN15},
    };
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        if (has_line(t, "<|im_start|>system", defaults[i].text)) return defaults[i].t;
    }
    size_t length;
    for (const char *line; (line = line_after(t, "<|im_start|>system", &length)) != NULL;) {
        if (length != 0 && ((line[0] | 0x20) >= 'a' && (line[0] | 0x20) <= 'z')) *known = false;
        t = (struct text){line, length};
    }
    return CHAT_TEMPLATE_CHATML;
}

static enum chat_template detect_chatml(struct text t, bool *known)
{
    bool opens_thinking = has_line(t, "<|im_start|>assistant", "<think>");
    /* Families that share the marker and nothing else: Phi 4, SmolVLM, SmolLM 3. */
    *known =
        !has(t, "<|im_sep|>") && !has(t, "<end_of_utterance>") && !has(t, "Knowledge Cutoff Date");
    if (!*known) return CHAT_TEMPLATE_CHATML;
    if (has(t, "reasoning_content") && has(t, "</think>")) {
        *known = has(t, "loop.last or (not loop.last and reasoning_content)");
        if (!*known) return CHAT_TEMPLATE_CHATML;
        return opens_thinking && !has(t, "enable_thinking") ? CHAT_TEMPLATE_QWEN3_THINKING
                                                            : CHAT_TEMPLATE_QWEN3;
    }
    if (opens_thinking && has(t, "</think>")) return CHAT_TEMPLATE_QWQ;
    return detect_default_system(t, known);
}

static enum chat_template detect_inst(struct text t)
{
    if (has(t, "[SYSTEM_PROMPT]"))
        return has(t, "[SYSTEM_PROMPT] ") ? CHAT_TEMPLATE_MISTRAL_V7
                                          : CHAT_TEMPLATE_MISTRAL_V7_TEKKEN;
    if (has(t, "<<SYS>>")) return CHAT_TEMPLATE_LLAMA2;
    if (has(t, "' [INST] '") || has(t, "\" [INST] \"")) return CHAT_TEMPLATE_MISTRAL_V1;
    if (has(t, "\"[INST]\"") || has(t, "'[INST]'")) return CHAT_TEMPLATE_MISTRAL_V3_TEKKEN;
    if (has(t, "[AVAILABLE_TOOLS]")) return CHAT_TEMPLATE_MISTRAL_V3;
    return CHAT_TEMPLATE_MISTRAL;
}

/*
 * Whether each message ends with the end token right after its content, which is what makes it
 * Zephyr's.
 */
static bool is_zephyr(struct text t)
{
    enum { NEAR = 64 };
    const char *user = memmem(t.data, t.length, "<|user|>", 8);
    if (user == NULL || !has(t, "<|assistant|>") || has(t, "[gMASK]")) return false;
    struct text near = {user, t.length - (size_t)(user - t.data)};
    if (near.length > NEAR) near.length = NEAR;
    return has(near, "eos_token") || has(near, "<|endoftext|>") || has(near, "</s>");
}

enum chat_template chat_template_detect_text(const char *text, size_t length, bool *known)
{
    struct text t = {text, length};
    *known = true;
    if (has(t, "<|im_start|>")) return detect_chatml(t, known);
    if (has(t, "[INST]")) return detect_inst(t);
    if (has(t, "<|start_header_id|>"))
        return has(t, "Cutting Knowledge Date") ? CHAT_TEMPLATE_LLAMA31 : CHAT_TEMPLATE_LLAMA3;
    if (has(t, "<start_of_turn>")) return CHAT_TEMPLATE_GEMMA;
    if (has(t, "<|assistant|>") && has(t, "<|end|>")) return CHAT_TEMPLATE_PHI3;
    if (is_zephyr(t))
        return has(t, "<|endoftext|>") ? CHAT_TEMPLATE_ZEPHYR_ENDOFTEXT : CHAT_TEMPLATE_ZEPHYR;
    if (has(t, "<｜User｜>") && has(t, "<｜Assistant｜>")) {
        if (has(t, "<｜Assistant｜><think>")) return CHAT_TEMPLATE_DEEPSEEK_R1_THINK;
        return has(t, "</think>") ? CHAT_TEMPLATE_DEEPSEEK_R1 : CHAT_TEMPLATE_DEEPSEEK_V3;
    }
    if (has(t, "### Instruction:") && has(t, "<|EOT|>")) return CHAT_TEMPLATE_DEEPSEEK_CODER;
    if (has(t, "'User: '") && has(t, "'Assistant: ' + message['content'] + eos_token"))
        return CHAT_TEMPLATE_DEEPSEEK;
    *known = false;
    return CHAT_TEMPLATE_CHATML;
}

enum chat_template chat_template_detect(const struct gguf *gguf, bool *known)
{
    struct gguf_str text;
    *known = false;
    if (gguf_get_str(gguf, "tokenizer.chat_template", &text, NULL) != SOV_OK)
        return CHAT_TEMPLATE_CHATML;
    enum chat_template t = chat_template_detect_text(text.data, text.length, known);
    if (t != CHAT_TEMPLATE_ZEPHYR) return t;
    /* The template says eos_token; which one that is says the vocabulary. */
    uint32_t eos;
    const struct gguf_array *tokens;
    if (gguf_get_u32(gguf, "tokenizer.ggml.eos_token_id", &eos, NULL) != SOV_OK ||
        gguf_get_array(gguf, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, NULL) != SOV_OK ||
        eos >= tokens->count)
        return t;
    struct text eos_text = {tokens->strings[eos].data, tokens->strings[eos].length};
    return eos_text.length == 13 && has(eos_text, "<|endoftext|>") ? CHAT_TEMPLATE_ZEPHYR_ENDOFTEXT
                                                                   : t;
}
