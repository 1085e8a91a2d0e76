/* SPDX-License-Identifier: Apache-2.0 */
/* The chat page, taken into the program as it is (the build runs in the root of the tree). */
#include "server/http.h"

__asm__(".pushsection .rodata\n"
        ".global server_page, server_page_end\n"
        "server_page:\n"
        ".incbin \"server/page.html\"\n"
        "server_page_end:\n"
        ".byte 0\n"
        ".popsection\n");
