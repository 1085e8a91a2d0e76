# SPDX-License-Identifier: Apache-2.0
# Sovereign: `make` builds build/sovereign, `make run` sets up and serves, `make test` sets up and tests.
# SAN=address,undefined or SAN=thread builds with sanitizers, into a folder of its own.

CC ?= gcc
SAN ?=
comma := ,
BUILD := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))
DEPS_DIR ?= $(if $(SOVEREIGN_DEPS),$(SOVEREIGN_DEPS),.deps)

PACKAGES := libmicrohttpd libsodium libxxhash jansson libpcre2-8 libedit
VERSION := 0.1.0

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wpointer-arith
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DSOV_VERSION='"$(VERSION)"' -I. $(WARN) $(CFLAGS) $(SANFLAGS) \
	-ffp-contract=off -fno-math-errno -MMD -MP $(PACKAGE_CFLAGS)
PACKAGE_CFLAGS = $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS = $(shell pkg-config --libs $(PACKAGES))
LIBS = $(PACKAGE_LIBS) -lpthread

ROOMS := base gguf kernels tokenizer model engine server
ARCH := $(shell uname -m)
LIB_SRCS := $(foreach room,$(ROOMS),$(wildcard $(room)/*.c)) $(wildcard kernels/scalar/*.c)
ifeq ($(ARCH),x86_64)
LIB_SRCS += $(wildcard kernels/avx2/*.c) $(wildcard kernels/avx512/*.c)
endif
CLI_SRCS := $(wildcard cli/*.c)
TEST_SRCS := $(wildcard tests/test_*.c)
ORACLE_SRCS := $(wildcard tests/oracle/*.c)

LIB_OBJS := $(LIB_SRCS:%.c=$(BUILD)/obj/%.o)
CLI_OBJS := $(CLI_SRCS:%.c=$(BUILD)/obj/%.o)
TESTS := $(TEST_SRCS:tests/%.c=$(BUILD)/tests/%)
ORACLES := $(ORACLE_SRCS:tests/oracle/%.c=$(BUILD)/oracle/%)
LIB := $(BUILD)/libsovereign.a
# Each ISA's folder gets its own flags; -O3 where the kernels are.
$(BUILD)/obj/kernels/%: CFLAGS += -O3
$(BUILD)/obj/kernels/avx2/%: CFLAGS += -O3 -mavx2 -mfma -mf16c -mbmi2
$(BUILD)/obj/kernels/avx512/%: CFLAGS += -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mfma -mf16c -mbmi2 -mprefer-vector-width=512

.PHONY: all tests oracles clean
all: $(if $(CLI_SRCS),$(BUILD)/sovereign) $(LIB) $(if $(wildcard tools/mkmodel.c),$(BUILD)/mkmodel)
tests: $(TESTS)
oracles: $(ORACLES)

$(LIB): $(LIB_OBJS)
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/sovereign: $(CLI_OBJS) $(LIB)
	$(CC) $(SANFLAGS) -o $@ $(CLI_OBJS) $(LIB) $(LIBS) -lm

$(BUILD)/mkmodel: $(BUILD)/obj/tools/mkmodel.o $(LIB)
	$(CC) $(SANFLAGS) -o $@ $< $(LIB) $(LIBS) -lm

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(SANFLAGS) -o $@ $< $(LIB) $(LIBS) -lcmocka -lm

# Oracle programs link libllama (C interface) from $(DEPS_DIR)/llama.
$(BUILD)/obj/tests/oracle/%.o: CFLAGS += -I$(DEPS_DIR)/llama/include
$(BUILD)/oracle/%: $(BUILD)/obj/tests/oracle/%.o $(LIB)
	@mkdir -p $(@D)
	g++ $(SANFLAGS) -o $@ $< $(LIB) $(DEPS_DIR)/llama/lib/libllama.a $(DEPS_DIR)/llama/lib/libggml.a \
		$(DEPS_DIR)/llama/lib/libggml-cpu.a $(DEPS_DIR)/llama/lib/libggml-base.a $(LIBS) -lcmocka -fopenmp -ldl -lm

clean:
	rm -rf build build-*

-include $(LIB_OBJS:.o=.d) $(CLI_OBJS:.o=.d) $(TEST_SRCS:%.c=$(BUILD)/obj/%.d) $(ORACLE_SRCS:%.c=$(BUILD)/obj/%.d)
.SECONDARY:
