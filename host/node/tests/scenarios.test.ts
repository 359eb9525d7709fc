/** The scenarios that every host runs, on each kind of database. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { runScenario } from "./scenario.ts";
import { onEachDatabase } from "./support.ts";

const folder = new URL("../../../tests/scenarios/", import.meta.url);
const scenarios = readdirSync(folder).filter((file) => file.endsWith(".txt"));

test("the folder of scenarios is complete", () => {
  assert.ok(scenarios.length >= 17);
});

for (const file of scenarios) {
  const text = readFileSync(new URL(file, folder), "utf8");
  onEachDatabase(file.slice(0, -4), (url) => runScenario(text, url));
}
