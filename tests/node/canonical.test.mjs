// SPDX-License-Identifier: Apache-2.0
// run-tests: seconds=300
//
// RFC 8785 is defined by what ECMAScript does: random documents, spelled in many ways, must come out of
// `sovereign canonical-json` as JSON.parse, a sort of the names and JSON.stringify make them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const sovereign = process.env.SOVEREIGN ?? join(process.env.BUILD ?? "build", "sovereign");

let state = 0x9e3779b97f4a7c15n;
function random64() {
  state ^= state >> 12n;
  state = BigInt.asUintN(64, state ^ (state << 25n));
  state ^= state >> 27n;
  return BigInt.asUintN(64, state * 0x2545f4914f6cdd1dn);
}
const below = n => Number(random64() >> 33n) % n;
const space = () => ["", "", " ", "\n", "\t", "\r\n"][below(6)];

function canonical(value) {
  if (Array.isArray(value)) return "[" + value.map(canonical).join(",") + "]";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return "{" + Object.keys(value).sort().map(k => JSON.stringify(k) + ":" + canonical(value[k])).join(",") + "}";
}

function ours(text) {
  const run = spawnSync(sovereign, ["canonical-json"], { input: text, maxBuffer: 1 << 28 });
  assert.equal(run.status, 0, run.stderr.toString());
  return run.stdout.toString();
}

function codePoint() {
  const ranges = [[0, 0x20], [0x20, 0x7f], [0x7f, 0x100], [0x7ff, 0x801], [0x2020, 0x2030], [0xd7f0, 0xd800],
    [0xe000, 0xe010], [0xfff0, 0x10000], [0x10000, 0x10010], [0x1f600, 0x1f640], [0x10fff0, 0x110000]];
  const [low, high] = ranges[below(ranges.length)];
  return low + below(high - low);
}
const hex = unit => "\\u" + (below(2) ? unit.toString(16) : unit.toString(16).toUpperCase()).padStart(4, "0");
function spellString() {
  let out = '"';
  for (let n = below(5); n > 0; n--) {
    const c = codePoint(), text = String.fromCodePoint(c);
    const escaped = below(3) === 0 || c < 0x20 || c === 0x22 || c === 0x5c;
    out += escaped ? [...text.split("")].map(u => hex(u.charCodeAt(0))).join("") : text;
  }
  return out + '"';
}

const bytes = new DataView(new ArrayBuffer(8));
function randomDouble() {
  for (;;) {
    bytes.setBigUint64(0, random64());
    const value = bytes.getFloat64(0);
    if (Number.isFinite(value)) return value;
  }
}
function spellNumber() {
  switch (below(6)) {
    case 0: return randomDouble().toExponential(20);
    case 1: return String(randomDouble()).replace("e", "E");
    case 2: return BigInt.asIntN(64, random64()).toString();
    case 3: return (below(2000000) / 1000 - 1000).toFixed(below(20));
    case 4: return String(2 ** (below(2098) - 1074));
    default: return `${below(2) ? "-" : ""}${below(100000)}.${below(1000000)}e${below(600) - 310}`;
  }
}

function spell(depth) {
  const kind = below(depth > 5 ? 4 : 7), parts = [];
  if (kind === 0) return ["null", "true", "false"][below(3)];
  if (kind === 1) return spellString();
  if (kind <= 3) return spellNumber();
  if (kind === 4) {
    for (let n = below(5); n > 0; n--) parts.push(space() + spell(depth + 1) + space());
    return "[" + parts.join(",") + "]";
  }
  const names = new Set();
  for (let n = below(6); n > 0; n--) {
    const name = spellString(), meant = JSON.parse(name);
    if (names.has(meant)) continue;
    names.add(meant);
    parts.push(space() + name + space() + ":" + spell(depth + 1) + space());
  }
  return "{" + parts.join(",") + "}";
}

// The first difference, not megabytes of both.
function same(found, expected) {
  if (found === expected) return;
  let i = 0;
  while (found[i] === expected[i]) i++;
  assert.fail(`at ${i}: ${found.slice(i - 30, i + 30)} instead of ${expected.slice(i - 30, i + 30)}`);
}

test("random documents", () => {
  for (let round = 0; round < 20; round++) {
    const texts = [];
    for (let i = 0; i < 1000; i++) texts.push(spell(0));
    const text = "[" + texts.join(",") + "]";
    same(ours(text), canonical(JSON.parse(text)));
  }
});

test("half a million random doubles", () => {
  for (let round = 0; round < 5; round++) {
    const values = [];
    for (let i = 0; i < 100000; i++) values.push(randomDouble());
    same(ours("[" + values.map(v => v.toExponential(17)).join(",") + "]"), JSON.stringify(values));
  }
});

test("powers of two and of ten, and their neighbours", () => {
  const values = [];
  const around = value => {
    bytes.setFloat64(0, value);
    const bits = bytes.getBigUint64(0);
    for (const step of [-1n, 0n, 1n]) {
      bytes.setBigUint64(0, BigInt.asUintN(64, bits + step));
      if (Number.isFinite(bytes.getFloat64(0))) values.push(bytes.getFloat64(0));
    }
  };
  for (let e = -1074; e < 1024; e++) around(2 ** e);
  for (let e = -323; e < 309; e++) around(Number("1e" + e));
  same(ours("[" + values.map(v => v.toExponential(20)).join(",") + "]"), JSON.stringify(values));
});

test("what JSON.parse refuses", () => {
  for (const text of ["", "[1,]", "{\"a\"}", "01", "1.", "nul", "'a'", "[1] 2", "\"\n\"", "\ufeff1", "\"\\x\"", "[", "\"\\u12\""]) {
    assert.throws(() => JSON.parse(text));
    const run = spawnSync(sovereign, ["canonical-json"], { input: text });
    assert.equal(run.status, 1, text);
    assert.equal(run.stdout.length, 0);
    assert.match(run.stderr.toString(), /standard input: byte \d+: /);
  }
});

test("what only RFC 8785 refuses", () => {
  for (const text of ["{\"a\":1,\"a\":2}", "\"\\ud800\"", "\"\\udc00x\"", "1e400", "[-1e309]"]) {
    JSON.parse(text);
    const run = spawnSync(sovereign, ["canonical-json"], { input: text });
    assert.equal(run.status, 1, text);
    assert.match(run.stderr.toString(), /standard input: byte \d+: /);
  }
});
