/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sovereign chat in a terminal, with a person's keys: a pseudo-terminal is filled with what the
 * program writes until an expected text is seen, or 20 seconds have passed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

enum { SCREEN_MAX = 1 << 20, WAIT_MS = 20000, PATH_CHARS = 512, WORDS_MAX = 24 };

/* A chat that runs, and all that it wrote so far. */
struct terminal {
    pid_t pid;
    int fd;
    size_t length;
    size_t seen; /* what is before was matched already */
    char screen[SCREEN_MAX];
};

static struct terminal terminal;
static char folder[PATH_CHARS];
static char program[PATH_CHARS];
static char slow_model[PATH_CHARS * 2];
static char small_model[PATH_CHARS * 2];

/* Runs `sovereign chat` with the words of flags (separated by spaces). */
static void chat_start(const char *flags)
{
    char copy[PATH_CHARS * 3];
    char *words[WORDS_MAX] = {program, "chat"};
    int count = 2;
    snprintf(copy, sizeof copy, "%s", flags);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        words[count++] = word;
    struct winsize size = {.ws_row = 24, .ws_col = 80};
    terminal.length = 0;
    terminal.seen = 0;
    terminal.pid = forkpty(&terminal.fd, NULL, NULL, &size);
    assert_true(terminal.pid >= 0);
    if (terminal.pid == 0) {
        setenv("HOME", folder, 1);
        setenv("TERM", "xterm", 1);
        unsetenv("XDG_STATE_HOME");
        unsetenv("LANG");
        unsetenv("LC_ALL");
        execv(program, words);
        _exit(127);
    }
}

static void chat_start_with(const char *flags, const char *model)
{
    char all[PATH_CHARS * 3];
    snprintf(all, sizeof all, "%s --model %s", flags, model);
    chat_start(all);
}

/* Reads until the text is there, beyond what was matched before; false at the end of output. */
static bool chat_reads(const char *text)
{
    int64_t deadline_ns = clock_monotonic_ns() + (int64_t)WAIT_MS * 1000000;
    for (;;) {
        terminal.screen[terminal.length] = '\0';
        const char *found = strstr(terminal.screen + terminal.seen, text);
        if (found != NULL) {
            terminal.seen = (size_t)(found - terminal.screen) + strlen(text);
            return true;
        }
        int64_t left_ms = (deadline_ns - clock_monotonic_ns()) / 1000000;
        struct pollfd ready = {.fd = terminal.fd, .events = POLLIN};
        if (left_ms <= 0 || poll(&ready, 1, (int)left_ms) <= 0) return false;
        ssize_t got =
            read(terminal.fd, terminal.screen + terminal.length, SCREEN_MAX - 1 - terminal.length);
        if (got <= 0) return false;
        for (ssize_t i = 0; i < got; i++) {
            if (terminal.screen[terminal.length + (size_t)i] == '\0')
                terminal.screen[terminal.length + (size_t)i] = '?';
        }
        terminal.length += (size_t)got;
    }
}

static void chat_shows(const char *text)
{
    if (chat_reads(text)) return;
    print_error("expected \"%s\" after:\n%s\n", text, terminal.screen);
    kill(terminal.pid, SIGKILL);
    fail();
}

/*
 * Waits for the prompt, and then until the program reads key by key: libedit writes the prompt just before it switches
 * the terminal over, and a Ctrl-D that comes in between would be taken for a character.
 */
static void chat_asks(const char *prompt)
{
    struct termios mode;
    chat_shows(prompt);
    for (int64_t waited_ms = 0; waited_ms < WAIT_MS; waited_ms++) {
        assert_int_equal(tcgetattr(terminal.fd, &mode), 0);
        if ((mode.c_lflag & ICANON) == 0) return;
        poll(NULL, 0, 1);
    }
    fail_msg("the terminal was not switched over after the prompt '%s'", prompt);
}

static void chat_types(const char *keys)
{
    assert_int_equal(write(terminal.fd, keys, strlen(keys)), strlen(keys));
}

/* Ctrl-D; the exit status must be 0. */
static void chat_leaves(void)
{
    int status = 0;
    chat_types("\004");
    while (chat_reads("never written by anything")) continue;
    struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, terminal.pid, 0), .events = POLLIN};
    if (poll(&ended, 1, WAIT_MS) != 1) kill(terminal.pid, SIGKILL);
    close(ended.fd);
    assert_int_equal(waitpid(terminal.pid, &status, 0), terminal.pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(terminal.fd);
}

static void test_question_and_answer(void **state)
{
    (void)state;
    chat_start("--quiet");
    chat_shows("/help lists the commands");
    chat_asks("> ");
    chat_types("What is Sovereign?\r");
    chat_shows("What is Sovereign?");
    chat_shows("Sovereign is");
    chat_asks("> ");
    chat_types("/stats\r");
    chat_shows("temperature 0");
    chat_asks("> ");
    chat_leaves();
}

static void test_history_is_kept_between_runs(void **state)
{
    (void)state;
    chat_start_with("--quiet", small_model);
    chat_asks("> ");
    chat_types("/system first line\r");
    chat_shows("begins anew");
    chat_asks("> ");
    chat_leaves();
    char path[PATH_CHARS * 2];
    struct stat st;
    snprintf(path, sizeof path, "%s/.local/state/sovereign/history", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    chat_start_with("--quiet", small_model);
    chat_asks("> ");
    chat_types("\033[A");
    chat_shows("/system first line");
    chat_types("\r");
    chat_shows("begins anew");
    chat_asks("> ");
    chat_leaves();
}

static void test_interrupt_stops_the_answer(void **state)
{
    (void)state;
    chat_start_with("--quiet --isa scalar --threads 1 --seed 1 --ctx 4096", slow_model);
    chat_asks("> ");
    chat_types("Go on for ever\r");
    chat_shows("Go on for ever\r\n");
    /* Some of the answer is there. */
    size_t begin = terminal.length;
    struct pollfd ready = {.fd = terminal.fd, .events = POLLIN};
    while (terminal.length < begin + 16) {
        assert_true(poll(&ready, 1, WAIT_MS) > 0);
        ssize_t got =
            read(terminal.fd, terminal.screen + terminal.length, SCREEN_MAX - 1 - terminal.length);
        assert_true(got > 0);
        terminal.length += (size_t)got;
    }
    chat_types("\003");
    chat_shows("[stopped]");
    chat_asks("> ");
    /* The program goes on, and so does the conversation. */
    chat_types("/save ");
    chat_types(folder);
    chat_types("/stopped.json\r");
    chat_shows("(2 messages in");
    chat_asks("> ");
    chat_types("/clear\r");
    chat_shows("(forgotten)");
    chat_asks("> ");
    chat_leaves();
}

static void test_interrupt_gives_a_line_up(void **state)
{
    (void)state;
    chat_start("--quiet");
    chat_asks("> ");
    chat_types("half a question");
    chat_shows("half a question");
    chat_types("\003");
    chat_shows("^C");
    chat_asks("> ");
    chat_types("first \\\r");
    chat_asks(". ");
    chat_types("\003");
    chat_asks("> ");
    chat_types("/save ");
    chat_types(folder);
    chat_types("/nothing.json\r");
    chat_shows("(0 messages in");
    chat_asks("> ");
    chat_leaves();
}

/* A terminal that changes its size again and again while a line is written and read; and
 * characters of two and three bytes. */
static void test_utf8_and_resizing(void **state)
{
    (void)state;
    char path[PATH_CHARS * 2];
    char text[PATH_CHARS] = "";
    chat_start_with("--quiet", small_model);
    chat_asks("> ");
    chat_types("/system n\303\251\303\251\177 \346\227\245\346\234\254\177");
    for (int columns = 20; columns <= 120; columns++) {
        struct winsize size = {.ws_row = 24, .ws_col = (unsigned short)columns};
        assert_int_equal(ioctl(terminal.fd, TIOCSWINSZ, &size), 0);
    }
    chat_types(" and so on\r");
    chat_shows("begins anew");
    chat_asks("> ");
    snprintf(path, sizeof path, "%s/utf8.json", folder);
    chat_types("/save ");
    chat_types(path);
    chat_types("\r");
    chat_shows("(0 messages in");
    chat_asks("> ");
    chat_leaves();
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    assert_non_null(strstr(text, "\"n\303\251 \346\227\245 and so on\""));
}

/* After the program is gone the terminal echoes, edits lines and sends signals as before. */
static void test_terminal_is_put_right(void **state)
{
    (void)state;
    struct termios before, after;
    int keep = -1;
    char name[PATH_CHARS] = "";
    chat_start("--quiet");
    assert_int_equal(tcgetattr(terminal.fd, &before), 0);
    assert_int_equal(ptsname_r(terminal.fd, name, sizeof name), 0);
    keep = open(name, O_RDWR | O_NOCTTY);
    assert_true(keep >= 0);
    chat_asks("> ");
    int status = 0;
    chat_types("half a line");
    chat_shows("half a line");
    assert_int_equal(kill(terminal.pid, SIGTERM), 0);
    assert_int_equal(waitpid(terminal.pid, &status, 0), terminal.pid);
    assert_int_equal(tcgetattr(keep, &after), 0);
    assert_int_equal(after.c_lflag & (ECHO | ICANON | ISIG), ECHO | ICANON | ISIG);
    assert_int_equal(after.c_cc[VINTR], before.c_cc[VINTR]);
    close(keep);
    close(terminal.fd);
}

static bool make_model(const char *path, const char *shape)
{
    const char *build = getenv("BUILD");
    char command[PATH_CHARS * 5];
    snprintf(command, sizeof command,
             "%s/mkmodel --arch llama %s --vocab-from models/guide.gguf --type q8_0 --seed 1 %s "
             ">/dev/null",
             build != NULL ? build : "build", shape, path);
    return system(command) == 0;
}

static int set_up(void **state)
{
    (void)state;
    const char *sovereign = getenv("SOVEREIGN");
    const char *temporary = getenv("TMPDIR");
    snprintf(program, sizeof program, "%s", sovereign != NULL ? sovereign : "build/sovereign");
    snprintf(folder, sizeof folder, "%s/sovereign-chat.XXXXXX",
             temporary != NULL ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(slow_model, sizeof slow_model, "%s/slow.gguf", folder);
    snprintf(small_model, sizeof small_model, "%s/small.gguf", folder);
    bool made = make_model(slow_model, "--dim 512 --layers 4 --heads 8 --ffn 1024") &&
                make_model(small_model, "--dim 64 --layers 1 --heads 2 --ffn 128");
    return made ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[PATH_CHARS * 2];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_question_and_answer),
        cmocka_unit_test(test_history_is_kept_between_runs),
        cmocka_unit_test(test_interrupt_stops_the_answer),
        cmocka_unit_test(test_interrupt_gives_a_line_up),
        cmocka_unit_test(test_utf8_and_resizing),
        cmocka_unit_test(test_terminal_is_put_right),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
