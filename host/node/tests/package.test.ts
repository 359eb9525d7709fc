/** What the package carries is what the program writes. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { newFolder, newSqlite, Program } from "./equipment.ts";

const root = new URL("../", import.meta.url);

test("it is made from the program's component, byte for byte", async () => {
  const written = join(await newFolder(), "tracker.wasm");
  await new Program(await newSqlite()).json("component", "--output", written);
  assert.deepEqual(await readFile(new URL("dist/component/tracker.wasm", root)), await readFile(written));
});

test("its migrations are those of the Rust host", async () => {
  for (const kind of ["sqlite", "postgres"]) {
    const theirs = new URL(`../boundary-usage/sql/${kind}/migrations/`, root);
    const scripts = (await readdir(theirs)).filter((file) => /^\d/.test(file));
    assert.ok(scripts.length >= 2);
    for (const script of scripts) {
      const ours = new URL(`dist/sql/${kind}/migrations/${script}`, root);
      assert.equal(await readFile(ours, "utf8"), await readFile(new URL(script, theirs), "utf8"));
    }
  }
});
