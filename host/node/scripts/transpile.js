/**
 * Makes JavaScript and core modules of the component, which is taken as it is: Node.js runs no components by itself.
 *
 * The component is `tracker.wasm` in the folder that the argument names, or in `dist/component`; the output goes there, too.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

import { transpileBytes } from "@bytecodealliance/jco-transpile";

const [, , named] = process.argv;
const folder = named ? pathToFileURL(`${named}/`) : new URL("../dist/component/", import.meta.url);
const component = await readFile(new URL("tracker.wasm", folder));
const { files } = await transpileBytes(component, {
  name: "tracker",
  instantiation: "async",
  asyncMode: "jspi",
  // Errors that the component answers are thrown as they are.
  noComponentErrorWrapping: true,
});
for (const [name, content] of Object.entries(files)) {
  const file = new URL(dirname(name).endsWith("interfaces") ? `interfaces/${basename(name)}` : basename(name), folder);
  await mkdir(new URL(".", file), { recursive: true });
  await writeFile(file, content);
}
