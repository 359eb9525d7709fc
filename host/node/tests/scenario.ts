/**
 * Runs the scenarios in `tests/scenarios`, which every host runs.
 *
 * The table of lines is in `tests/src/scenario.rs`. This host flushes and injects the faults. The program of the Rust
 * host executes `collect` and `rows` on the same database. Node.js has one thread, so `threads` are interleaved loops.
 */

import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";

import { connect, Tracker } from "boundary-usage";

import { Faults } from "./faults.ts";
import { MANUAL, Program } from "./support.ts";

/** Runs the lines of a scenario on a new database. Throws an error that contains the first line that fails. */
export async function runScenario(text: string, url: string): Promise<void> {
  const scenario = new Scenario(new Faults(await connect(url)), new Program(url));
  for (const [index, line] of text.split("\n").entries()) {
    if (line !== "" && !line.startsWith("#")) {
      await scenario.run(line.split(" ")).catch((cause: unknown) => {
        throw new Error(`line ${index + 1}: ${line}`, { cause });
      });
    }
  }
  await scenario.end();
}

class Scenario {
  readonly #faults: Faults;
  readonly #program: Program;
  readonly #trackers = new Map<string, Tracker>();

  constructor(faults: Faults, program: Program) {
    this.#faults = faults;
    this.#program = program;
  }

  /** Runs one line. */
  async run(words: string[]): Promise<void> {
    const [command = "", first = "", ...rest] = words;
    switch (command) {
      case "track": {
        const [workspace = "", user = "", allowed, denied] = rest;
        (await this.#tracker(first)).track(uuid(workspace), uuid(user), Number(allowed), Number(denied));
        return;
      }
      case "threads":
        return trackFromThreads(await this.#tracker(first), ...numbers(rest, 4));
      case "beside":
        return trackBesideFlushes(await this.#tracker(first), ...numbers(rest, 3));
      case "flush": {
        const outcome = await flush(await this.#tracker(first));
        const expected = rest[1];
        assert.ok(expected === "any" || expected === outcome, outcome);
        return;
      }
      case "fail":
        this.#faults.queue.push(first);
        return;
      case "restart":
        await this.#trackers.get(first)?.shutdown();
        this.#trackers.delete(first);
        return;
      case "collect": {
        const totals = await this.#program.totals();
        assert.deepEqual(
          totals.map((total, index) => `${"WUAD"[index]}${total}`),
          rest,
        );
        return;
      }
      case "rows":
        assert.equal((await this.#program.json("status")).rows.length, Number(rest[0]));
        return;
      default:
        throw new Error("unknown command");
    }
  }

  async end(): Promise<void> {
    assert.deepEqual(this.#faults.queue, [], "some faults were not injected");
    for (const tracker of this.#trackers.values()) {
      await tracker.shutdown();
    }
    await this.#faults.close();
  }

  /** Returns the tracker of a replica, and starts it if necessary. */
  async #tracker(replica: string): Promise<Tracker> {
    const running = this.#trackers.get(replica);
    if (running !== undefined) {
      return running;
    }
    const tracker = await Tracker.start(uuid(replica), this.#faults, MANUAL);
    this.#trackers.set(replica, tracker);
    return tracker;
  }
}

async function flush(tracker: Tracker): Promise<string> {
  try {
    return (await tracker.flush()).outcome;
  } catch {
    return "error";
  }
}

async function trackFromThreads(tracker: Tracker, threads = 0, times = 0, allowed = 0, denied = 0): Promise<void> {
  const thread = async (id: string) => {
    for (let time = 0; time < times; time += 1) {
      tracker.track(id, id, allowed, denied);
      await turn();
    }
  };
  await Promise.all(Array.from({ length: threads }, (_, index) => thread(numbered(index + 1))));
}

async function trackBesideFlushes(tracker: Tracker, count = 0, allowed = 0, denied = 0): Promise<void> {
  const flushing = (async () => {
    for (let flushes = 0; flushes < count; flushes += 1) {
      await tracker.flush();
    }
  })();
  for (let number = 1; number <= count; number += 1) {
    tracker.track(numbered(number), numbered(number), allowed, denied);
    await turn();
  }
  await flushing;
}

function numbers(words: string[], length: number): number[] {
  assert.equal(words.length, length);
  return words.map(Number);
}

/** Returns the UUID of a name such as `w7`: its first byte is the letter, and its last bytes are the number. */
export function uuid(name: string): string {
  return numbered(Number(name.slice(1)), name.charCodeAt(0));
}

/** Returns the UUID of a number, with this first byte. */
export function numbered(number: number, first = 0): string {
  const digits = first.toString(16).padStart(2, "0") + number.toString(16).padStart(30, "0");
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
