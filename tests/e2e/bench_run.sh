#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What bench/run refuses before it measures anything, and when FLOORS=yes fails.
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/lib_e2e.sh

check 'a setting that is not there' fails 2 "there is no setting 'SECTION'" bench/run SECTION=engine
check 'not a setting' fails 2 "'engine' is not NAME=VALUE" bench/run engine
check 'rounds that are no number' fails 2 "ROUNDS must be a number from 1 on, not 'abc'" bench/run ROUNDS=abc
check 'no rounds' fails 2 "ROUNDS must be a number from 1 on, not '0'" bench/run ROUNDS=0
check 'a section that is not there' fails 2 "there is no section 'engines'" bench/run SECTIONS=engines

finish
