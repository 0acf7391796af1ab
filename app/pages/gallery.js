// Many pictures at once: each is asked for by itself, a few at a time, and fails by itself.

import { decisionWords, element, percent } from "./words.js";

const AT_ONCE = 4;

export class Gallery {
  #list;
  #entries = [];
  #onChange;
  #onOpen;
  #work = new AbortController();

  /** `onChange` is called when a picture is done, `onOpen(entry)` when the person opens one. */
  constructor(list, { onChange, onOpen }) {
    this.#list = list;
    this.#onChange = onChange;
    this.#onOpen = onOpen;
  }

  get entries() {
    return this.#entries;
  }

  get done() {
    return this.#entries.filter((entry) => entry.result || entry.problem).length;
  }

  get failed() {
    return this.#entries.filter((entry) => entry.problem).length;
  }

  get isBusy() {
    return this.#entries.length > this.done && !this.#work.signal.aborted;
  }

  /** Show the files and have each classified by `ask(file, signal)`. */
  async start(files, ask) {
    this.clear();
    this.#work = new AbortController();
    const { signal } = this.#work;
    this.#entries = files.map((file) => new Entry(file, this.#onOpen));
    this.#list.replaceChildren(...this.#entries.map((entry) => entry.node));
    const waiting = this.#entries.values();
    const work = async () => {
      for (const entry of waiting) {
        if (signal.aborted) return;
        try {
          entry.show(await ask(entry.file, signal));
        } catch (error) {
          if (error.name === "AbortError") return;
          entry.fail(error);
        }
        this.#onChange();
      }
    };
    this.#onChange();
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  }

  stop() {
    this.#work.abort();
    this.#onChange();
  }

  clear() {
    this.#work.abort();
    for (const entry of this.#entries) entry.free();
    this.#entries = [];
    this.#list.replaceChildren();
  }

  /** Return what is known of the pictures, as `predict --output csv` has it, with the decision and the error. */
  csv() {
    const rows = [["file", "model", "version", "label", "probability", "decision", "error"]];
    for (const { file, result, problem } of this.#entries) {
      const { model = {}, label = "", probability = "", decision = "" } = result?.answer ?? {};
      rows.push([file.name, model.name ?? "", model.version ?? "", label, probability, decision, problem?.message ?? ""]);
    }
    return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
  }
}

/** One picture of the gallery. */
class Entry {
  #address;
  #outcome = element("span", { className: "outcome" }, "…");

  constructor(file, onOpen) {
    this.file = file;
    this.#address = URL.createObjectURL(file);
    const image = element("img", { src: this.#address, alt: "", loading: "lazy", decoding: "async" });
    image.onerror = () => image.replaceWith(element("span", { className: "no-preview" }, "no preview"));
    const name = element("span", { className: "file" }, file.name);
    this.button = element("button", { type: "button", onclick: () => onOpen(this) }, image, name, this.#outcome);
    this.node = element("li", {}, this.button);
  }

  show(result) {
    this.result = result;
    const { label, probability, decision } = result.answer;
    const words = decisionWords(decision);
    this.#outcome.replaceChildren(
      element("strong", {}, label),
      ` ${percent(probability)}`,
      ...(words ? [element("span", { className: "badge" }, words[0])] : []),
    );
  }

  fail(problem) {
    this.problem = problem;
    this.#outcome.textContent = problem.message;
    this.node.classList.add("failed");
  }

  free() {
    URL.revokeObjectURL(this.#address);
  }
}

/** Return a cell of a CSV file. A spreadsheet would run what begins like a formula, so an apostrophe goes before it. */
function cell(value) {
  const text = typeof value === "number" ? String(value) : String(value).replace(/^[=+\-@\t\r]/, "'$&");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
