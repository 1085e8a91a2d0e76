/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in model's bytes (cli/guide.h). GUIDE_FILE is not defined when the tree has none: then they are none. */
    .section .rodata
    .balign 64
    .globl sov_guide_start
    .globl sov_guide_end
sov_guide_start:
#ifdef GUIDE_FILE
    .incbin GUIDE_FILE
#endif
sov_guide_end:
    .byte 0
    .section .note.GNU-stack,"",%progbits
