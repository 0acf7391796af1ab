// node's fetch, undici and axios, unmodified: node clients.js URL SEVEN.png
// Prints a line for each case: its name, a tab, and the status with the answer's label or error code.

import { readFile } from "node:fs/promises";
import http from "node:http";
import { Readable } from "node:stream";

import axios from "axios";
import * as undici from "undici";

const OVERSIZED = Buffer.alloc(16_000_000);
const AT_ONCE = 100;
const TIMEOUT_MS = 20_000;
const [url, file] = process.argv.slice(2);
const seven = await readFile(file);

const PICTURE = { "Content-Type": "image/png" };
const TEXT = { "Content-Type": "text/plain" };

function said(status, body) {
  const [, found] = /"(?:label|code)": ?"([^"]*)"/.exec(body) ?? [];
  return `${status} ${found ?? body}`;
}

/** A body of a length that the client does not know: it goes out in chunks. */
function stream(body) {
  const pieces = [];
  for (let at = 0; at < body.length; at += 65_536) pieces.push(body.subarray(at, at + 65_536));
  return Readable.from(pieces.length > 1 ? pieces : [body.subarray(0, 100), body.subarray(100)]);
}

function form() {
  const made = new FormData();
  made.append("file", new Blob([seven], { type: "image/png" }), "sieben – 7.png");
  return made;
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
const pool = new undici.Pool(url, { connections: 8, pipelining: 4 });

// Each sends one request and resolves to its status, headers and body.
const clients = {
  fetch: async (method, path, body, headers) => {
    const options = { method, body, headers, signal: AbortSignal.timeout(TIMEOUT_MS) };
    const answer = await fetch(url + path, body instanceof Readable ? { ...options, duplex: "half" } : options);
    return [answer.status, answer.headers.get("content-length"), await answer.text()];
  },
  undici: async (method, path, body, headers) => {
    const answer = await pool.request({ method, path, body, headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
    return [answer.statusCode, answer.headers["content-length"], await answer.body.text()];
  },
  axios: async (method, path, body, headers) => {
    const answer = await axios.request({
      method, url: url + path, data: body, headers, httpAgent: agent, responseType: "text", maxRedirects: 0,
      transformResponse: (text) => text, validateStatus: () => true, signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    return [answer.status, answer.headers["content-length"], answer.data];
  },
};

async function tell(name, what) {
  let found;
  try {
    found = await what();
  } catch (error) {
    found = `${error} ${error.cause ?? error.code ?? ""}`;
  }
  console.log(`${name}\t${found}`);
}

for (const [name, ask] of Object.entries(clients)) {
  const post = async (path, body, headers) => {
    const [status, , text] = await ask("POST", path, body, headers);
    return said(status, text);
  };
  await tell(`${name}: a picture`, () => post("/predict", seven, PICTURE));
  await tell(`${name}: the next picture`, () => post("/predict", seven, PICTURE));
  await tell(`${name}: a form`, () => post("/predict", form(), {}));
  await tell(`${name}: a stream`, () => post("/predict", stream(seven), PICTURE));
  await tell(`${name}: 100 at once`, async () => {
    const answers = await Promise.all(Array.from({ length: AT_ONCE }, () => post("/predict", seven, PICTURE)));
    return [...new Set(answers)].join(", ");
  });
  await tell(`${name}: HEAD`, async () => {
    const [, , got] = await ask("GET", "/models");
    const [status, length, body] = await ask("HEAD", "/models");
    return `${status} ${Number(length) === Buffer.byteLength(got) ? "GET's length" : "another length"}${body ?? ""}`;
  });
  await tell(`${name}: no such path`, () => post("/nowhere", seven, PICTURE));
  await tell(`${name}: oversized`, () => post("/predict", OVERSIZED, PICTURE));
  await tell(`${name}: an oversized stream`, () => post("/predict", stream(OVERSIZED), PICTURE));
  await tell(`${name}: oversized to no such path`, () => post("/nowhere", stream(OVERSIZED), PICTURE));
  await tell(`${name}: oversized text`, () => post("/predict", OVERSIZED, TEXT));
  await tell(`${name}: a picture after all that`, () => post("/predict", seven, PICTURE));
}
await pool.close();
agent.destroy();
