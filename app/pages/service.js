// Asks the service. The key is in this module's memory, and nowhere else.

const MOST_TRIES = 6;
const LONGEST_WAIT_S = 30;

let key = "";

export function useKey(given) {
  key = given;
}

export const hasKey = () => key !== "";

/** A request without a usable answer. `message` is the service's own sentence; `status` is 0 if nobody answered. */
export class Problem extends Error {
  constructor(message, { status = 0, requestId = "" } = {}) {
    super(message);
    this.status = status;
    this.requestId = requestId;
  }
}

/** Ask, and return the response. While the service is busy, wait as long as it says and ask again; `onBusy` is told. */
async function ask(address, { onBusy = () => {}, signal, ...options } = {}) {
  for (let tries = 1; ; tries += 1) {
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    const began = performance.now();
    let response;
    try {
      response = await fetch(address, { ...options, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("The service did not answer. See whether it is running and reachable, then try again.");
    }
    if (response.ok) return { response, began };
    const problem = await read(response);
    if (response.status !== 503 || tries === MOST_TRIES) throw problem;
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT_S);
    onBusy(problem, seconds);
    await pause(seconds, signal);
  }
}

async function read(response) {
  const { status } = response;
  try {
    const { error, request_id: requestId } = await response.json();
    if (typeof error === "string") return new Problem(error, { status, requestId });
  } catch {
    // no JSON: the answer is not the service's
  }
  return new Problem(
    `Something between this page and the service answered with status ${status}. A proxy may limit what it lets through.`,
    { status },
  );
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function askForJson(address) {
  const { response } = await ask(address);
  return response.json();
}

export const facts = () => askForJson("page/service.json");

/** Return the versions that answer: each model's live one, followed by the one that is in preview. */
export async function versions() {
  const { models } = await askForJson("models");
  return models.flatMap((live) => (live.preview ? [live, { ...live.preview, isPreview: true }] : [live]));
}

/** Say whether a version finds what is drawn on a sheet, wherever that is. */
export async function knowsDrawings(model) {
  const { preprocessing } = await askForJson(`models/${encodeURIComponent(model.name)}${query("?", model)}`);
  return preprocessing.framing === "mass";
}

export const samples = async ({ name }) => (await askForJson(`page/samples/${encodeURIComponent(name)}`)).samples;

export async function sample(address) {
  return (await ask(address)).response.blob();
}

/** The live version is named by no request, so that its successor answers the next one. */
const query = (mark, { version, isPreview }) => (isPreview ? `${mark}version=${version}` : "");

const chosen = (model) => `model=${encodeURIComponent(model.name)}${query("&", model)}`;

/** The address that classifies by this version, as a program needs it. */
export const predictAddress = (model) => new URL(`predict?${chosen(model)}`, document.baseURI).href;

/** Classify a picture; return the answer and where the time went, in milliseconds. Raises Problem or AbortError. */
export async function classify(picture, model, { signal, onBusy } = {}) {
  try {
    await picture.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem("The browser cannot read this file. If it is a folder, choose the pictures that are in it.");
  }
  const { response, began } = await ask(predictAddress(model), {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" }, // the service looks at the bytes, not at a file's name
    body: picture,
    signal,
    onBusy,
  });
  const answer = await response.json();
  return { answer, time: timeOf(response.headers.get("Server-Timing") ?? "", performance.now() - began) };
}

/** Return the picture with what speaks for the answer drawn over it. Raises Problem or AbortError. */
export async function explain(picture, model, { signal }) {
  const address = `explain?format=png&${chosen(model)}`;
  const headers = { "Content-Type": "application/octet-stream" };
  return (await ask(address, { method: "POST", headers, body: picture, signal })).response.blob();
}

function timeOf(serverTiming, total) {
  const parts = {};
  for (const [, name, value] of serverTiming.matchAll(/([\w-]+);dur=([\d.]+)/g)) parts[name] = Number(value);
  return { total, parts };
}
