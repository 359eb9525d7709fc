/**
 * Converts the component to JavaScript and core modules, because Node.js cannot run components itself.
 *
 * The first argument is the folder of `tracker.wasm` and of the output. The default is `dist/component`.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

import { transpileBytes } from "@bytecodealliance/jco-transpile";

const [, , argument] = process.argv;
const folder = argument ? pathToFileURL(`${argument}/`) : new URL("../dist/component/", import.meta.url);
const component = await readFile(new URL("tracker.wasm", folder));
const { files } = await transpileBytes(component, {
  name: "tracker",
  instantiation: "async",
  asyncMode: "jspi",
  // Errors that the component returns are thrown without a wrapper.
  noComponentErrorWrapping: true,
});
for (const [name, content] of Object.entries(files)) {
  const file = new URL(dirname(name).endsWith("interfaces") ? `interfaces/${basename(name)}` : basename(name), folder);
  await mkdir(new URL(".", file), { recursive: true });
  await writeFile(file, content);
}
