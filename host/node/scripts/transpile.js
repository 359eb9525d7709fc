/**
 * Converts the component to JavaScript and core modules, because Node.js cannot run components itself.
 *
 * The first argument is the folder of `tracker.wasm` and of the output. The default is `dist/component`. The output of
 * jco is then corrected by the replacements below. A version of jco with other output makes the build fail.
 */

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";

import { transpileBytes } from "@bytecodealliance/jco-transpile";

/** The number of async functions that the component imports. */
const ASYNC_IMPORTS = 5;

/** Replacements in the generated code: the reason, the pattern, its number of matches, and the new text. */
const REPLACEMENTS = [
  [
    // See `src/timers.ts`.
    "jco waits for a fixed time, where it could wait for an import",
    /^"use components";$/m,
    1,
    '"use components";\nimport { setTimeout } from "../timers.js";',
  ],
  [
    // https://github.com/bytecodealliance/jco/pull/1739 fixes the same fault for streams and futures only.
    "the result of an async import is written to the component's memory twice, and the first copy is never freed",
    /^( +)(var variant\d+ = ret;)$/gm,
    ASYNC_IMPORTS,
    "$1task.resolve([ret]);\n$1task.exit();\n$1return ret;\n$1$2",
  ],
  [
    "each call reads an environment variable, and each byte of a list is a call",
    /if \(!globalThis\?\.process\?\.env\?\.JCO_DEBUG\) \{ return; \}\s+console\.debug\(\.\.\.args\);/,
    1,
    "",
  ],
  [
    "a list of bytes for the component is copied byte by byte",
    /(ctx\.storagePtr = dataPtr;\s+for \(const \[idx, elem\] of )elems\.entries\(\)\) \{/,
    1,
    "const isBytes = elemLowerFn === _lowerFlatU8 && elems instanceof Uint8Array;\n" +
      "      if (isBytes) { new Uint8Array(ctx.memory.buffer).set(elems, dataPtr); }\n" +
      "      $1isBytes ? [] : elems.entries()) {",
  ],
  [
    "a list of bytes of the component is copied byte by byte",
    /(ctx\.storagePtr = dataPtr;\s+)const val = \[\];\s+for \(var i = 0; i < len; i\+\+\) \{/,
    1,
    "$1const isBytes = typedArray === Uint8Array;\n" +
      "      const val = isBytes ? new Uint8Array(ctx.memory.buffer, dataPtr, len) : [];\n" +
      "      for (var i = isBytes ? len : 0; i < len; i++) {",
  ],
];

/** Corrects the generated code. */
function correct(code) {
  for (const [reason, pattern, expected, text] of REPLACEMENTS) {
    const matches = code.match(new RegExp(pattern, "gm"))?.length ?? 0;
    if (matches !== expected) {
      const what = `the output of jco has ${matches} matches of ${pattern} instead of ${expected}`;
      throw new Error(`${what}; adapt scripts/transpile.js to this version of jco (${reason})`);
    }
    code = code.replace(pattern, text);
  }
  return code;
}

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
  await writeFile(file, basename(name) === "tracker.js" ? correct(new TextDecoder().decode(content)) : content);
}
