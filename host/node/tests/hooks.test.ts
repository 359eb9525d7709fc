/** Values from callers: activities of any type, invalid options, and an `onError` that fails. */

import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";

import { BoundaryUsageError, connect, Tracker, type TrackerOptions } from "boundary-usage";
import { rareWarnings } from "../src/options.ts";

import { Faults } from "./faults.ts";
import { uuid } from "./scenario.ts";
import { MANUAL, newSqlite, onEachDatabase, Program, rows } from "./support.ts";

const NEVER = Number.POSITIVE_INFINITY;

test("repeated failures cause one warning a minute, with the number of the others", () => {
  const warnings: string[] = [];
  let now = 0;
  const report = rareWarnings(
    (error) => warnings.push(error.message),
    () => now,
  );
  for (; now < 150_000; now += 1_000) {
    report(new BoundaryUsageError("unavailable", `failure ${now / 1_000}`));
  }
  const others = "(and 59 failures before it)";
  assert.deepEqual(warnings, ["failure 0", `failure 60 ${others}`, `failure 120 ${others}`]);
});

onEachDatabase("`track` refuses values that are not ids or counts, and loses nothing", async (url) => {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  const [w, u] = [uuid("w1"), uuid("u1")];
  tracker.track(w, u, 1, 1);
  const counts = [
    1.5,
    -1,
    Number.NaN,
    NEVER,
    -NEVER,
    2 ** 53,
    "3",
    "",
    "x",
    null,
    true,
    {},
    [],
    [1],
    Symbol("1"),
    () => 1,
    -1n,
    new Date(),
    { valueOf: () => 1 },
    Object.create(null),
  ];
  for (const value of counts) {
    for (const activity of [
      [w, u, value, 0],
      [w, u, 0, value],
    ]) {
      assert.throws(
        () => (tracker.track as any)(...activity),
        { kind: "configuration", message: /not a count/ },
        typeof value,
      );
    }
  }
  const digits = w.replaceAll("-", "");
  const texts = [
    "",
    "w1",
    digits,
    `{${w}}`,
    `urn:uuid:${w}`,
    `${w}\n`,
    ` ${w}`,
    w.slice(1),
    `${w}0`,
    w.replace("-", "_"),
  ];
  const others = [
    null,
    undefined,
    1,
    1n,
    true,
    Symbol("w"),
    {},
    [w],
    { toString: () => w },
    new String(w),
    Object.create(null),
  ];
  for (const value of [...texts, w.replace(/^./, "g"), "١".repeat(36), "x".repeat(100_000), ...others]) {
    for (const activity of [
      [value, u, 1, 0],
      [w, value, 1, 0],
    ]) {
      const isShort = (error: BoundaryUsageError) => error.kind === "configuration" && error.message.length < 300;
      assert.throws(() => (tracker.track as any)(...activity), isShort, typeof value);
    }
  }
  tracker.track(w.toUpperCase(), u, 2, 2);
  await tracker.shutdown();
  assert.deepEqual(await new Program(url).totals(), [1, 1, 3, 3]);
  await database.close();
});

onEachDatabase("counts beyond 2^53 are exact, and saturate at 2^63 - 1", async (url) => {
  const database = await connect(url);
  const tracker = await Tracker.start(uuid("r1"), database, MANUAL);
  const counts = async () => {
    const query =
      "SELECT CAST(allowed_requests AS text) AS a, CAST(denied_requests AS text) AS d FROM boundary_usage_stats";
    const [row] = await rows(url, query);
    return [BigInt(row.a), BigInt(row.d)];
  };
  tracker.track(uuid("w1"), uuid("u1"), 2n ** 53n + 1n, Number.MAX_SAFE_INTEGER);
  await tracker.flush();
  assert.deepEqual(await counts(), [2n ** 53n + 1n, 2n ** 53n - 1n]);
  tracker.track(uuid("w1"), uuid("u1"), 2n ** 53n, 2);
  await tracker.flush();
  assert.deepEqual(await counts(), [2n ** 54n + 1n, 2n ** 53n + 1n]);
  tracker.track(uuid("w1"), uuid("u1"), 2n ** 63n, 2n ** 200n);
  await tracker.flush();
  assert.deepEqual(await counts(), [2n ** 63n - 1n, 2n ** 63n - 1n]);
  await tracker.shutdown();
  await database.close();
});

test("invalid options are refused by name", async () => {
  const database = await connect(await newSqlite());
  const invalid: [keyof TrackerOptions, unknown[]][] = [
    ["flushInterval", [0, -1, Number.NaN, 2 ** 31, "60000", null, 1n, Symbol("1")]],
    ["flushJitter", [-0.1, 1.1, Number.NaN, "0.1", null]],
    ["shutdownTimeout", [-1, Number.NaN, NEVER, 2 ** 31, "1000", null]],
    ["onError", [null, "log", {}]],
  ];
  for (const [name, values] of invalid) {
    for (const value of values) {
      const started = Tracker.start(uuid("r1"), database, { [name]: value } as TrackerOptions);
      await assert.rejects(started, { kind: "configuration", message: new RegExp(`^${name} is`) }, String(value));
    }
  }
  const unset = Object.fromEntries(invalid.map(([name]) => [name, undefined])) as TrackerOptions;
  await (await Tracker.start(uuid("r1"), database, unset)).shutdown();
  await database.close();
});

const hooks: [string, () => unknown][] = [
  [
    "throws",
    () => {
      throw new Error("\u001b[31mthe hook failed\n");
    },
  ],
  ["rejects", () => Promise.reject(new Error("\u001b[31mthe hook failed\n"))],
  [
    "throws undefined",
    () => {
      throw undefined;
    },
  ],
];
for (const [how, hook] of hooks) {
  test(`the flush loop continues after an \`onError\` that ${how}, and warns`, async () => {
    const url = await newSqlite();
    const faults = new Faults(await connect(url));
    faults.queue.push("begin", "acquire", "read");
    const written = new Promise<void>((resolve) => (faults.onUpsert = resolve));
    const warned = once(process, "warning");
    const tracker = await Tracker.start(uuid("r1"), faults, { flushInterval: 1, onError: hook as () => void });
    tracker.track(uuid("w1"), uuid("u1"), 1, 1);
    // The flush loop does not keep the process alive, but this timer does.
    const alive = setInterval(() => {}, 1_000);
    await written;
    clearInterval(alive);
    await tracker.shutdown();
    const [{ name, message }] = await warned;
    assert.equal(name, "BoundaryUsageWarning");
    assert.match(message, /^onError failed: [^\u001b\n]*; it was called with: injected by the test$/);
    assert.deepEqual(await new Program(url).totals(), [1, 1, 1, 1]);
  });
}

test("an error drops a cause with control characters or excessive length", () => {
  for (const text of ["\u001b[31mred", "x".repeat(5_000)]) {
    assert.equal(new BoundaryUsageError("refused", "failed", { cause: new Error(text) }).cause, undefined);
  }
  const cause = new Error("the reason");
  assert.equal(new BoundaryUsageError("refused", "failed", { cause }).cause, cause);
});

test("a message has escaped control characters and a maximal length", () => {
  const { message } = new BoundaryUsageError("refused", `a\u001b]0;x\u0007\r\n\u009b1m\u202e${"z".repeat(5_000)}`);
  assert.match(message, /^a\\u\{1b\}\]0;x\\u\{7\}\\u\{d\}\\u\{a\}\\u\{9b\}1m\\u\{202e\}z+… \(\d+ characters\)$/);
  assert.ok(message.length < 1_100);
});
