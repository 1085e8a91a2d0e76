# SPDX-License-Identifier: Apache-2.0
#
# make          builds build/sovereign and build/mkmodel
# make run      serves the built-in model on http://127.0.0.1:8080 (PORT=, RUN_ARGS="--model F ...")
# make chat     talks to it in the terminal (CHAT_ARGS=)
# make federation  starts a federation of four nodes on this machine, to try it
# make test     runs every test; TEST=pattern selects (unit/test_base_pool, e2e, ...), FUZZ_SECONDS=5 per fuzz target
# make soak     half an hour of mixed load with AddressSanitizer (SOAK_SECONDS=)
# make fuzz     fuzzes for longer (FUZZ_SECONDS=600);  make bench  measures beside llama.cpp (BENCH_ARGS=)
# make simulate runs the federation under simulated faults (SEEDS=20000)
# make tune     measures the kernels of this CPU and writes its table, kernels/tuning/NAME.h
# make install  PREFIX=/usr/local DESTDIR=;  make format, make lint, make clean
#
# SAN=address,undefined or SAN=thread builds and tests with sanitizers, AMX=emulated with AMX tiles in plain C (so that
# a CPU with AVX-512 can test those kernels; slow), each in a folder of its own.
# Each of these first installs what is missing (scripts/setup) and then calls make again: pkg-config knows the libraries
# only after that. SETUP=no leaves the system alone. Everything is built from the lists below: a new .c file in a room is
# found by itself.

SAN ?=
AMX ?=
PREFIX ?= /usr/local
PORT ?= 8080
SEEDS ?= 20000
comma := ,
BUILD := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(AMX),-amx-$(AMX))
DEPS_DIR := $(if $(SOVEREIGN_DEPS),$(SOVEREIGN_DEPS),.deps)
VERSION := 0.1.0

PACKAGES := libmicrohttpd libsodium libxxhash jansson libpcre2-8 libedit sqlite3
PACKAGE_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
LIBS := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lpthread -lm
TEST_LIBS := -lcmocka

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wpointer-arith
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DSOV_VERSION='"$(VERSION)"' $(AMX_DEFINES) -I. $(WARN) $(CFLAGS) $(SANFLAGS) \
	-ffp-contract=off -fno-math-errno -MMD -MP $(PACKAGE_CFLAGS)
# Each ISA's folder gets its own flags; -O3 where the kernels are, unless a sanitizer would make that take minutes.
# GCC lays vectors of 64 bytes into the frames of asan's detect_stack_use_after_return, which are aligned to 32 only.
KERNEL_CFLAGS := $(if $(SAN),-O1 $(if $(findstring address,$(SAN)),--param asan-use-after-return=0),-O3)
AVX2_CFLAGS := -mavx2 -mfma -mf16c -mbmi2
AVX512_CFLAGS := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vbmi -mavx512vnni -mfma -mf16c -mbmi2 \
	-mprefer-vector-width=512
NEON_DOT_CFLAGS := -march=armv8.2-a+dotprod
NEON_I8MM_CFLAGS := -march=armv8.2-a+dotprod+i8mm
# The AMX kernels use AVX-512, too. Compilers that do not know the instructions build without them.
AMX_CFLAGS := $(AVX512_CFLAGS) -mamx-tile -mamx-int8
# The compiler's machine, which is not this one when it is a cross compiler.
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
X86 := $(filter x86_64,$(MACHINE))
AMX_KNOWN := $(if $(X86),$(shell echo '__asm__("tdpbsud %tmm0, %tmm1, %tmm2");' | \
	$(CC) $(AMX_CFLAGS) -x c -c -o /dev/null - 2>/dev/null && echo yes))
AMX_DEFINES := $(if $(AMX_KNOWN),-DSOV_AMX $(if $(filter emulated,$(AMX)),-DSOV_AMX_EMULATED))
ORACLE_CFLAGS := $(if $(wildcard $(DEPS_DIR)/llama/lib),-I$(DEPS_DIR)/llama/include,$(shell pkg-config --cflags llama 2>/dev/null))
file_cflags = $(if $(filter kernels/%,$1),$(KERNEL_CFLAGS)) $(if $(filter kernels/avx2/%,$1),$(AVX2_CFLAGS)) \
	$(if $(filter kernels/avx512/%,$1),$(AVX512_CFLAGS)) $(if $(filter kernels/neon/%_dot.c,$1),$(NEON_DOT_CFLAGS)) \
	$(if $(filter kernels/neon/%_i8mm.c,$1),$(NEON_I8MM_CFLAGS)) \
	$(if $(filter kernels/amx/%,$1),$(AMX_CFLAGS)) $(if $(filter tests/test_matmul_amx.c,$1),$(if $(X86),$(AVX512_CFLAGS))) \
	$(if $(filter tests/oracle/% bench/%,$1),$(ORACLE_CFLAGS))

ROOMS := base json gguf kernels kernels/scalar tokenizer model engine cache ihsan runtime federation server benchmark cli
ROOMS += $(if $(X86),kernels/avx2 kernels/avx512) $(if $(AMX_KNOWN),kernels/amx)
ROOMS += $(if $(filter aarch64,$(MACHINE)),kernels/neon)
MAIN := cli/main.c
LIB_SRCS := $(filter-out $(MAIN),$(foreach room,$(ROOMS),$(wildcard $(room)/*.c)))
TOOL_SRCS := $(wildcard tools/*.c)
TEST_SRCS := $(wildcard tests/test_*.c)
ORACLE_SRCS := $(wildcard tests/oracle/*.c)
FUZZ_SRCS := $(wildcard fuzz/fuzz_*.c)
SIM_SRCS := $(wildcard sim/*.c)
BENCH_SRCS := $(wildcard bench/*.c)
MKMODEL_SRCS := $(wildcard tools/mkmodel/*.c)
REPORT_SRCS := $(wildcard bench/report/*.c)
# The last two are another machine's, to be formatted on every one.
ALL_SRCS := $(LIB_SRCS) $(wildcard $(MAIN)) $(TOOL_SRCS) $(MKMODEL_SRCS) $(TEST_SRCS) $(ORACLE_SRCS) $(FUZZ_SRCS) $(BENCH_SRCS) \
	$(REPORT_SRCS) $(SIM_SRCS) $(wildcard kernels/neon/*.c tests/aarch64/*.c)
GUIDE := $(wildcard models/guide.gguf)

LIB := $(BUILD)/libsovereign.a
PROGRAMS := $(if $(wildcard $(MAIN)),$(BUILD)/sovereign) $(TOOL_SRCS:tools/%.c=$(BUILD)/%)
TESTS := $(TEST_SRCS:tests/%.c=$(BUILD)/tests/%)
ORACLES := $(ORACLE_SRCS:tests/oracle/%.c=$(BUILD)/oracle/%)
FUZZERS := $(FUZZ_SRCS:fuzz/%.c=$(BUILD)/bin/%)
# llama.cpp for the section isa of make bench: the variants (scripts/oracle) that this CPU runs.
BENCH_WANTS_ISA = $(or $(findstring isa,$(BENCH_ARGS)),$(if $(findstring SECTIONS=,$(BENCH_ARGS))$(findstring \
	QUICK=yes,$(BENCH_ARGS)),,isa))
BENCH_VARIANTS = $(if $(BENCH_WANTS_ISA),$(subst avx512_vnni,avx512,$(sort $(shell grep -m 1 '^flags' /proc/cpuinfo | \
	grep -o -w -e avx2 -e avx512_vnni))))
BENCH_ISAS := $(foreach isa,avx512 avx2,$(if $(wildcard $(DEPS_DIR)/llama-$(isa)/stamp),$(isa)))
BENCHES := $(BENCH_SRCS:bench/%.c=$(BUILD)/bench/%) $(BENCH_ISAS:%=$(BUILD)/bench/bench_llama-%) $(BUILD)/bench/report

# One short line per step; V=1 shows the commands instead.
Q := $(if $(V),,@)
say = $(if $(V),@:,@echo '  $1')
# As many jobs as CPUs, unless the caller said how many.
SUB = --no-print-directory $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))
export SETUP

.PHONY: all run chat federation test soak fuzz simulate bench tune install format lint clean distclean
.PHONY: binaries tests aarch64 oracles oracle fuzzers fuzz-binaries benches lint-files FORCE
.SECONDARY:
.DELETE_ON_ERROR:

all:
	@scripts/setup build
	@$(MAKE) $(SUB) binaries

run:
	@scripts/setup run
	@$(MAKE) $(SUB) binaries
	$(BUILD)/sovereign serve --port $(PORT) $(RUN_ARGS)

chat:
	@scripts/setup run
	@$(MAKE) $(SUB) binaries
	@$(BUILD)/sovereign chat $(CHAT_ARGS)

federation:
	@scripts/setup run
	@$(MAKE) $(SUB) binaries
	@$(BUILD)/sovereign federation try $(FEDERATION_ARGS)

# The oracle and the fuzz targets are not built with sanitizers: gcc's would not see into libllama, and the fuzz targets
# have their own.
test:
	@scripts/setup test
	@$(MAKE) $(SUB) binaries tests $(if $(SAN),,fuzzers oracle aarch64)
	@$(if $(SAN),,$(MAKE) $(SUB) oracles)
	@BUILD=$(BUILD) SAN=$(SAN) SOVEREIGN_DEPS=$(DEPS_DIR) scripts/run-tests $(TEST)

soak:
	@scripts/setup test
	@$(MAKE) $(SUB) SAN=address,undefined soak-binaries
	@BUILD=build-address-undefined ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 \
		SOAK_SECONDS=$${SOAK_SECONDS:-1800} build-address-undefined/tests/test_soak

fuzz:
	@scripts/setup test
	@$(MAKE) $(SUB) fuzzers
	@BUILD=$(BUILD) FUZZ_SECONDS=$${FUZZ_SECONDS:-600} scripts/run-tests fuzz/$(TEST)

# As many runs of a simulated federation as a release wants to see.
simulate:
	@scripts/setup test
	@$(MAKE) $(SUB) $(BUILD)/simulate
	$(BUILD)/simulate --seeds 1..$(SEEDS) --jobs $(shell nproc) --coverage

bench:
	@scripts/setup bench
	@scripts/oracle tools
	@$(foreach isa,$(BENCH_VARIANTS),scripts/oracle $(isa) &&) true
	@$(MAKE) $(SUB) binaries benches
	@BUILD=$(BUILD) SOVEREIGN_DEPS=$(DEPS_DIR) bench/run $(BENCH_ARGS)

tune:
	@scripts/setup build
	@$(MAKE) $(SUB) $(BUILD)/bench/tune
	@$(BUILD)/bench/tune >$(BUILD)/bench/tuning.h
	@cp $(BUILD)/bench/tuning.h kernels/tuning/$$($(BUILD)/bench/tune --name).h

install: all
	install -D -m 755 $(BUILD)/sovereign $(DESTDIR)$(PREFIX)/bin/sovereign
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/sovereign LICENSE CHANGELOG.md $(wildcard README.md docs/*.md)

binaries: $(PROGRAMS) $(LIB)
# Not for the emulated CPU, which has no federation.
SIMULATORS := $(if $(filter federation,$(ROOMS)),$(BUILD)/simulate $(BUILD)/simulate-mutants)
tests: $(TESTS) $(if $(SAN),,$(SIMULATORS))
soak-binaries: $(BUILD)/mkmodel $(BUILD)/tests/test_soak
oracles: $(ORACLES)
benches: $(BENCHES)
fuzz-binaries: $(FUZZERS)
oracle:
	@scripts/oracle
# The tests of tests/aarch64, for an emulated CPU: of what needs no library but the C library. xxhash is all in its
# header. mkmodel is this machine's: the emulator runs its system's programs.
AARCH64_CC := aarch64-linux-gnu-gcc
AARCH64_LIBC = $(if $(filter aarch64,$(MACHINE)),,$(wildcard $(shell $(AARCH64_CC) -print-file-name=libc.a 2>/dev/null)))
AARCH64_TESTS := $(patsubst %,tests/test_%.c,matmul vec_exact vec_accuracy projection_exact quant model_exact)
aarch64:
	$(if $(AARCH64_LIBC),@$(MAKE) $(SUB) BUILD=build/aarch64 CC=$(AARCH64_CC) AR=aarch64-linux-gnu-ar \
		ROOMS='base gguf kernels kernels/scalar kernels/neon model' LIBS='-static -lpthread -lm' TEST_LIBS= \
		PACKAGE_CFLAGS='-Itests/aarch64 -DXXH_INLINE_ALL' \
		TEST_SRCS='$(AARCH64_TESTS) $(wildcard tests/aarch64/*.c)' tests && ln -sfn ../mkmodel build/aarch64/mkmodel)
# The kernels are only linked, never reached: they need no sanitizers.
fuzzers:
	@$(MAKE) $(SUB) BUILD=build/fuzz CC=clang CFLAGS='-O1 -g' KERNEL_CFLAGS='-O0 -fno-sanitize=all' \
		SANFLAGS='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' fuzz-binaries

# These two files change only when what they hold changes: the flags (then all is compiled anew) and the lists of
# sources (then the library is archived anew, without the files that went away).
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS_TEXT" | cmp -s - $@ || printf '%s\n' "$$FLAGS_TEXT" >$@
$(BUILD)/flags: export FLAGS_TEXT = $(shell $(CC) --version | head -n 1) $(ALL_CFLAGS) $(KERNEL_CFLAGS) $(AVX2_CFLAGS) \
	$(AMX_CFLAGS) $(NEON_DOT_CFLAGS) $(NEON_I8MM_CFLAGS) $(LIBS)
$(BUILD)/sources: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_SRCS) $(GUIDE)' | cmp -s - $@ || echo '$(LIB_SRCS) $(GUIDE)' >$@

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,cc $<)
	$(Q)$(CC) $(ALL_CFLAGS) $(call file_cflags,$<) -c -o $@ $<

$(LIB): $(LIB_SRCS:%.c=$(BUILD)/obj/%.o) $(BUILD)/obj/cli/guide_data.o $(BUILD)/sources
	$(call say,ar $@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

# The built-in model, when the tree has one, becomes part of the program (cli/guide.h).
$(BUILD)/obj/cli/guide_data.o: cli/guide_data.S $(GUIDE) $(BUILD)/sources
	@mkdir -p $(@D)
	$(call say,cc $<)
	$(Q)$(CC) $(if $(GUIDE),-DGUIDE_FILE='"$(GUIDE)"') -c -o $@ $<

$(BUILD)/obj/server/page.o: server/page.html

# link DRIVER,FLAGS,LIBRARIES: the target from its objects and archives.
define link
	@mkdir -p $(@D)
	$(call say,ld $@)
	$(Q)$(1) $(SANFLAGS) $(2) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(3)
endef

$(BUILD)/sovereign: $(MAIN:%.c=$(BUILD)/obj/%.o) $(LIB)
	$(call link,$(CC),,$(LIBS))
$(TOOL_SRCS:tools/%.c=$(BUILD)/%): $(BUILD)/%: $(BUILD)/obj/tools/%.o $(LIB)
	$(call link,$(CC),,$(LIBS))
$(BUILD)/mkmodel: $(MKMODEL_SRCS:%.c=$(BUILD)/obj/%.o)
# The simulator runs the production core. Its second build has planted faults in the core, to be found (pbft_mutation.h).
$(BUILD)/simulate: $(SIM_SRCS:%.c=$(BUILD)/obj/%.o) $(LIB)
	$(call link,$(CC),,$(LIBS))
MUTANT_OBJS := $(patsubst %.c,$(BUILD)/mutants/%.o,$(SIM_SRCS) $(wildcard federation/message*.c federation/pbft*.c))
$(BUILD)/simulate-mutants: $(MUTANT_OBJS) $(LIB)
	$(call link,$(CC),,$(LIBS))
$(BUILD)/mutants/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,cc $< (mutants))
	$(Q)$(CC) $(ALL_CFLAGS) -DPBFT_MUTATIONS -c -o $@ $<
# So that the test sees who calls these, or holds them up (tests/engine_gate.h).
$(BUILD)/tests/test_server_cache: TEST_LINK := -Wl,--wrap=tokenizer_encode,--wrap=tokenizer_encode_guarded,--wrap=engine_submit,--wrap=model_forward
$(BUILD)/tests/test_server_cache_flight: TEST_LINK := -Wl,--wrap=model_forward,--wrap=cache_reader_close
$(addprefix $(BUILD)/tests/test_server_,query query_cache metrics): TEST_LINK := -Wl,--wrap=model_forward
$(BUILD)/tests/test_runtime_query_ends: TEST_LINK := -Wl,--wrap=model_forward,--wrap=clock_monotonic_ns
$(BUILD)/tests/test_runtime_model_digest: TEST_LINK := -Wl,--wrap=clock_gettime
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(LIB)
	$(call link,$(CC),$(TEST_LINK),$(LIBS) $(TEST_LIBS))
$(BUILD)/bin/fuzz_%: $(BUILD)/obj/fuzz/fuzz_%.o $(LIB)
	$(call link,$(CC),-fsanitize=fuzzer,$(LIBS))

# libllama is C++: the linker driver must be, too.
ORACLE_LIBS := $(if $(wildcard $(DEPS_DIR)/llama/lib),$(patsubst %,$(DEPS_DIR)/llama/lib/lib%.a,llama ggml ggml-cpu ggml-base) \
	-fopenmp -ldl,$(shell pkg-config --libs llama 2>/dev/null))
$(BUILD)/oracle/%: $(BUILD)/obj/tests/oracle/%.o $(LIB) $(wildcard $(DEPS_DIR)/llama/stamp)
	$(call link,g++,,$(ORACLE_LIBS) $(LIBS) -lcmocka)
$(BUILD)/bench/tune $(BUILD)/bench/bench_cache $(BUILD)/bench/bench_http $(BUILD)/bench/bench_federation_store: $(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(LIB)
	$(call link,$(CC),,$(LIBS))
$(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(LIB) $(wildcard $(DEPS_DIR)/llama/stamp)
	$(call link,g++,,$(ORACLE_LIBS) $(LIBS))
$(BENCH_ISAS:%=$(BUILD)/bench/bench_llama-%): $(BUILD)/bench/bench_llama-%: $(BUILD)/obj/bench/bench_llama.o $(LIB) \
		$(DEPS_DIR)/llama-%/stamp
	$(call link,g++,,$(patsubst %,$(DEPS_DIR)/llama-$*/lib/lib%.a,llama ggml ggml-cpu ggml-base) -fopenmp -ldl $(LIBS))
$(BUILD)/bench/report: $(REPORT_SRCS:%.c=$(BUILD)/obj/%.o) $(LIB)
	$(call link,$(CC),,$(LIBS))

format:
	@scripts/setup lint
	clang-format -i $(ALL_SRCS) $(wildcard */*.h */*/*.h)
lint:
	@scripts/setup lint
	clang-format --dry-run --Werror $(ALL_SRCS) $(wildcard */*.h */*/*.h)
	@$(MAKE) $(SUB) lint-files
	shellcheck --severity=warning -x $(wildcard scripts/* .ci/run tests/*/*.sh bench/run)
# Not the tests: what they assert is hidden from the analyzer.
lint-files: $(LIB_SRCS:%=$(BUILD)/lint/%) $(MAIN:%=$(BUILD)/lint/%) $(TOOL_SRCS:%=$(BUILD)/lint/%) $(MKMODEL_SRCS:%=$(BUILD)/lint/%)
$(BUILD)/lint/%.c: %.c .clang-tidy $(BUILD)/flags
	@mkdir -p $(@D)
	clang-tidy --quiet $< -- $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(call file_cflags,$<)
	@touch $@

clean:
	rm -rf build build-*
distclean: clean
	rm -rf .deps tests/node/node_modules

-include $(ALL_SRCS:%.c=$(BUILD)/obj/%.d) $(MUTANT_OBJS:.o=.d)
