/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/line_editor.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "base/mem.h"

enum { LINE_HISTORY_ENTRIES = 1000, LINE_FOLDER_MODE = 0700, LINE_FILE_MODE = 0600 };

/*
 * Signals while a line is edited. libedit would follow the window's size and put the terminal right in its handlers, on
 * whichever thread the signal comes to, the engine's included, beside the thread that edits. Here the handler only
 * writes to a pipe, and what is to be done is done where the keys are read.
 */
static const int line_signals[] = {SIGWINCH, SIGCONT, SIGTSTP, SIGTERM, SIGHUP, SIGQUIT};
enum { LINE_SIGNALS = sizeof line_signals / sizeof *line_signals };
static int line_signal_pipe[2] = {-1, -1};

static void line_on_signal(int number)
{
    int kept = errno;
    unsigned char byte = (unsigned char)number;
    /* When the pipe is full there is enough in it to wake the reader. */
    ssize_t written = write(line_signal_pipe[1], &byte, 1);
    (void)written;
    errno = kept;
}

struct line_editor {
    EditLine *edit;                        /* NULL when not interactive */
    struct sigaction before[LINE_SIGNALS]; /* what was there for line_signals */
    mbstate_t character;                   /* of a UTF-8 sequence that is being read */
    History *history;
    bool given_up;
    const char *prompt;
    char path[PATH_MAX]; /* of the history; "" when there is no place for it */
    char *line;          /* getline's */
    size_t line_capacity;
};

static char *line_prompt(EditLine *edit)
{
    struct line_editor *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    return (char *)(uintptr_t)editor->prompt;
}

/* Ctrl-C: shows it at the end of the line, and ends the line through libedit itself, which knows
 * where the cursor is. */
static unsigned char line_give_up(EditLine *edit, int character)
{
    (void)character;
    struct line_editor *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    editor->given_up = true;
    el_cursor(edit, INT_MAX / 2);
    el_insertstr(edit, "^C");
    el_push(edit, "\n");
    return CC_REFRESH;
}

static void line_signals_take(struct line_editor *editor)
{
    /* A write that a signal breaks off would count as output that failed; poll ends all the same. */
    struct sigaction action = {.sa_handler = line_on_signal, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    for (int i = 0; i < LINE_SIGNALS; i++) sigaction(line_signals[i], &action, &editor->before[i]);
}

static void line_signals_give_back(struct line_editor *editor)
{
    for (int i = 0; i < LINE_SIGNALS; i++) sigaction(line_signals[i], &editor->before[i], NULL);
}

/* The line once more, at the beginning of the row. */
static void line_redraw(struct line_editor *editor)
{
    fputc('\r', stdout);
    el_set(editor->edit, EL_REFRESH);
}

/* Signals that end or stop us find the terminal as it was. */
static void line_do_signal(struct line_editor *editor, int number)
{
    if (number == SIGWINCH) {
        el_resize(editor->edit);
    } else {
        el_set(editor->edit, EL_PREP_TERM, 0);
        line_signals_give_back(editor);
        if (number != SIGCONT) kill(getpid(), number);
        line_signals_take(editor);
        el_set(editor->edit, EL_PREP_TERM, 1);
    }
    line_redraw(editor);
}

/* libedit's way to read: a character, or 0 at the end, or -1. Bytes that are no UTF-8 are passed over. */
static int line_read_character(EditLine *edit, wchar_t *out)
{
    struct line_editor *editor = NULL;
    el_get(edit, EL_CLIENTDATA, &editor);
    for (;;) {
        struct pollfd ready[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                  {.fd = line_signal_pipe[0], .events = POLLIN}};
        if (poll(ready, 2, -1) < 0) {
            if (errno == EINTR) continue;
            return -1;
        }
        unsigned char number;
        if (ready[1].revents != 0 && read(line_signal_pipe[0], &number, 1) == 1) {
            line_do_signal(editor, number);
            continue;
        }
        if (ready[0].revents == 0) continue;
        char byte;
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return (int)got;
        size_t used = mbrtowc(out, &byte, 1, &editor->character);
        if (used == 0 || used == 1) return 1;
        if (used == (size_t)-1) memset(&editor->character, 0, sizeof editor->character);
    }
}

/* $XDG_STATE_HOME/sovereign/history, or ~/.local/state/sovereign/history; "" when there is no home.
 * */
static void line_find_history(char path[PATH_MAX])
{
    const char *state = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");
    int length = -1;
    if (state != NULL && state[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s/sovereign/history", state);
    } else if (home != NULL && home[0] == '/') {
        length = snprintf(path, PATH_MAX, "%s/.local/state/sovereign/history", home);
    }
    if (length < 0 || length >= PATH_MAX - 8) path[0] = '\0';
}

static void line_save_history(struct line_editor *editor)
{
    if (editor->path[0] == '\0') return;
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", editor->path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, LINE_FOLDER_MODE) != 0 && errno != EEXIST) return;
        *slash = '/';
    }
    /* Written beside and renamed, so that two chats that end together leave one whole history. */
    char temporary[PATH_MAX + 16];
    snprintf(temporary, sizeof temporary, "%s.%ld", editor->path, (long)getpid());
    HistEvent event;
    mode_t old = umask(0777 & ~LINE_FILE_MODE);
    int saved = history(editor->history, &event, H_SAVE, temporary);
    umask(old);
    if (saved < 0 || rename(temporary, editor->path) != 0) unlink(temporary);
}

static bool line_start_editing(struct line_editor *editor)
{
    HistEvent event;
    editor->edit = el_init("sovereign", stdin, stdout, stderr);
    editor->history = history_init();
    if (editor->edit == NULL || editor->history == NULL) return false;
    if (line_signal_pipe[0] < 0 && pipe2(line_signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return false;
    line_find_history(editor->path);
    history(editor->history, &event, H_SETSIZE, LINE_HISTORY_ENTRIES);
    history(editor->history, &event, H_SETUNIQUE, 1);
    if (editor->path[0] != '\0') history(editor->history, &event, H_LOAD, editor->path);
    el_set(editor->edit, EL_CLIENTDATA, editor);
    el_set(editor->edit, EL_PROMPT, line_prompt);
    el_set(editor->edit, EL_EDITOR, "emacs");
    el_set(editor->edit, EL_GETCFN, line_read_character);
    el_set(editor->edit, EL_HIST, history, editor->history);
    /* While a line is edited Ctrl-C is a key, so that libedit's state stays whole. */
    el_set(editor->edit, EL_SETTY, "-d", "-intr", NULL);
    /* libedit keeps these two texts: given as narrow ones it would copy them and never free them. */
    el_wset(editor->edit, EL_ADDFN, L"give-up", L"Give the line up", line_give_up);
    el_set(editor->edit, EL_BIND, "^C", "give-up", NULL);
    el_set(editor->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(editor->edit, NULL);
    return true;
}

struct line_editor *line_editor_open(bool interactive)
{
    /* Character type only: numbers must stay as they are. A bare "C" locale would make libedit
     * refuse UTF-8. */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    struct line_editor *editor = sov_calloc(1, sizeof *editor);
    if (editor == NULL) return NULL;
    if (interactive && !line_start_editing(editor)) {
        line_editor_close(editor);
        return NULL;
    }
    return editor;
}

static enum line_result line_read_plain(struct line_editor *editor, struct strbuf *out)
{
    ssize_t length = getline(&editor->line, &editor->line_capacity, stdin);
    if (length < 0) return LINE_END;
    if (length > 0 && editor->line[length - 1] == '\n') length--;
    if (length > 0 && editor->line[length - 1] == '\r') length--;
    strbuf_append(out, editor->line, (size_t)length);
    return LINE_TEXT;
}

enum line_result line_editor_read(struct line_editor *editor, const char *prompt,
                                  struct strbuf *out)
{
    if (editor->edit == NULL) return line_read_plain(editor, out);
    editor->prompt = prompt;
    editor->given_up = false;
    int length = 0;
    /* libedit would show the prompt first and change the terminal's mode then: a Ctrl-D or Ctrl-C
     * between the two would be lost. */
    line_signals_take(editor);
    el_resize(editor->edit); /* for what it was while no line was edited */
    el_set(editor->edit, EL_PREP_TERM, 1);
    const char *line = el_gets(editor->edit, &length);
    line_signals_give_back(editor);
    if (editor->given_up) return LINE_GIVEN_UP;
    if (line == NULL || length <= 0) return LINE_END;
    bool blank = strspn(line, " \t\r\n") == strlen(line);
    HistEvent event;
    if (!blank) history(editor->history, &event, H_ENTER, line);
    size_t used = strcspn(line, "\r\n");
    strbuf_append(out, line, used);
    return LINE_TEXT;
}

void line_editor_close(struct line_editor *editor)
{
    if (editor == NULL) return;
    if (editor->history != NULL && editor->edit != NULL) line_save_history(editor);
    if (editor->edit != NULL) el_end(editor->edit);
    if (editor->history != NULL) history_end(editor->history);
    free(editor->line);
    sov_free(editor);
}
