// Verifies requests with the reference library for JavaScript.
//
// Reads one JSON object on each line of stdin: `secret`, `headers` and `body`. Prints `valid` or `invalid` for each.
import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    new Webhook(secret).verify(body, headers);
    console.log("valid");
  } catch {
    console.log("invalid");
  }
}
