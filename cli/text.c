/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/text.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/cli.h"

enum { READ_CHUNK_BYTES = 65536, CONTROL_PICTURES = 0x2400, DELETE_PICTURE = 0x2421 };

void cli_picture_controls(struct strbuf *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        uint32_t c = 0;
        size_t n = utf8_decode(text + i, length - i, &c);
        if (n == 0) n = 1;
        char picture[4];
        if (c < 0x20 && c != '\n' && c != '\t') {
            strbuf_append(out, picture, utf8_encode(CONTROL_PICTURES + c, picture));
        } else if (c == 0x7f) {
            strbuf_append(out, picture, utf8_encode(DELETE_PICTURE, picture));
        } else if (c >= 0x80 && c < 0xa0) {
            strbuf_append(out, picture, utf8_encode(0xfffd, picture));
        } else {
            strbuf_append(out, picture, utf8_encode(c, picture));
        }
        i += n;
    }
}

void cli_put_text(FILE *out, bool terminal, const char *text, size_t length)
{
    if (!terminal) {
        fwrite(text, 1, length, out);
        return;
    }
    struct strbuf safe = {0};
    cli_picture_controls(&safe, text, length);
    if (!strbuf_failed(&safe)) fwrite(strbuf_text(&safe), 1, safe.length, out);
    strbuf_free(&safe);
}

int cli_read_file(const char *path, size_t max, struct strbuf *out)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *file = standard ? stdin : fopen(path, "rbe");
    if (file == NULL) return cli_error("%s: cannot be opened (%s)", path, strerror(errno));
    int status = CLI_OK;
    char chunk[READ_CHUNK_BYTES];
    size_t begin = out->length;
    for (;;) {
        errno = 0;
        size_t n = fread(chunk, 1, sizeof chunk, file);
        if (n == 0) break;
        if (out->length - begin + n > max) {
            status = cli_error("%s: longer than %zu bytes, which is the most a text may have", name,
                               max);
            break;
        }
        if (!strbuf_append(out, chunk, n)) {
            status = cli_error("%s: no memory for its text", name);
            break;
        }
    }
    if (status == CLI_OK && ferror(file))
        status = cli_error("%s: cannot be read (%s)", name, strerror(errno));
    if (!standard) fclose(file);
    return status;
}
