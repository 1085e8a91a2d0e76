/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/text.h"

#include "base/file.h"
#include "base/utf8.h"
#include "cli/cli.h"

enum { CONTROL_PICTURES = 0x2400, DELETE_PICTURE = 0x2421 };

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
    struct sov_errbuf err = {""};
    return file_read(path, max, out, &err) == SOV_OK ? CLI_OK : cli_error("%s", err.message);
}
