/** The content of the package. */

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { newFolder, newSqlite, Program } from "./support.ts";

const root = new URL("../", import.meta.url);

test("the package contains the program's component", async () => {
  const written = join(await newFolder(), "tracker.wasm");
  await new Program(await newSqlite()).json("component", "--output", written);
  assert.deepEqual(await readFile(new URL("dist/component/tracker.wasm", root)), await readFile(written));
});

test("the package contains the SQL files of the Rust host", async () => {
  const theirs = new URL("../boundary-usage/sql/", root);
  const files = (await readdir(theirs, { recursive: true })).filter((file) => file.endsWith(".sql"));
  assert.ok(files.length >= 60, `${files.length} files`);
  for (const file of files) {
    const ours = new URL(`dist/sql/${file}`, root);
    assert.equal(await readFile(ours, "utf8"), await readFile(new URL(file, theirs), "utf8"), file);
  }
});
