// Shows what a model says of a picture. Bars keep their order and their places from answer to answer.

import { decisionWords, element, milliseconds, percent, titleOf } from "./words.js";

/** One model's answers, in a panel of its own. */
export class AnswerPanel {
  #bars = new Map();
  #badge = element("p", { className: "badge", hidden: true });
  #reason = element("p", { className: "quiet", hidden: true });
  #best = element("p", { className: "best" });
  #list = element("ul", { className: "bars" });
  #title = element("h3");
  #time = element("div", { className: "time", hidden: true });

  constructor(model) {
    this.model = model;
    this.#list.setAttribute("aria-label", `Probabilities by ${titleOf(model)}`);
    this.#name(model.version);
    this.#draw(model.labels);
    const parts = [this.#title, this.#best, this.#badge, this.#reason, this.#list, this.#time];
    this.node = element("div", { className: "panel" }, ...parts);
    this.clear();
  }

  /** Show an answer, and where its time went. */
  show({ answer, time }) {
    const labels = Object.keys(answer.probabilities);
    // Another version may have gone live, with other labels.
    if (labels.length !== this.#bars.size || !labels.every((label) => this.#bars.has(label))) this.#draw(labels);
    this.#name(answer.model.version);
    for (const [label, bar] of this.#bars) bar.set(answer.probabilities[label], label === answer.label);
    this.#best.replaceChildren(
      element("span", { className: "label" }, answer.label),
      element("span", { className: "value" }, percent(answer.probability)),
    );
    const decision = decisionWords(answer.decision);
    this.#badge.hidden = this.#reason.hidden = decision === undefined;
    [this.#badge.textContent, this.#reason.textContent] = decision ?? ["", ""];
    this.#time.replaceChildren(...timeline(time));
    this.#time.hidden = false;
    this.node.classList.remove("empty");
  }

  get headline() {
    return this.#best;
  }

  clear() {
    for (const bar of this.#bars.values()) bar.set(0, false);
    this.#best.replaceChildren(`It knows ${this.#bars.size} labels.`);
    this.#badge.hidden = this.#reason.hidden = this.#time.hidden = true;
    this.node.classList.add("empty");
  }

  #name(version) {
    const { name, isPreview } = this.model;
    const words = ` version ${version}${isPreview ? ", preview" : ""}`;
    this.#title.replaceChildren(name, element("span", { className: "quiet" }, words));
  }

  #draw(labels) {
    this.#bars = new Map(labels.map((label) => [label, new Bar(label)]));
    this.#list.replaceChildren(...[...this.#bars.values()].map((bar) => bar.node));
    // A long list scrolls in a place of its own, which the keyboard has to reach.
    this.#list.classList.toggle("long", labels.length > 12);
    if (labels.length > 12) this.#list.tabIndex = 0;
    else this.#list.removeAttribute("tabindex");
  }
}

class Bar {
  #fill = element("span", { className: "fill" });
  #value = element("span", { className: "value" });

  constructor(label) {
    const track = element("span", { className: "track" }, this.#fill);
    track.setAttribute("aria-hidden", "true"); // the number says the same
    this.node = element("li", {}, element("span", { className: "name" }, label), track, this.#value);
  }

  set(probability, isBest) {
    this.node.classList.toggle("is-best", isBest);
    this.#fill.style.setProperty("--share", String(probability));
    this.#value.textContent = percent(probability);
  }
}

// The parts of Server-Timing in the order in which they happen, as a person calls them.
const PARTS = { read: "reading", decode: "decoding", queue: "waiting for a batch", infer: "the model" };

/** Return where the time of one answer went, as a bar and in words. */
function timeline({ total, parts }) {
  const known = Object.entries(PARTS).filter(([name]) => Object.hasOwn(parts, name));
  const shares = known.map(([name, words]) => [name, words, parts[name]]);
  const inside = shares.reduce((sum, [, , taken]) => sum + taken, 0);
  shares.push(["way", "network and browser", Math.max(0, total - inside)]);
  const bar = element("div", { className: "timeline" });
  bar.setAttribute("aria-hidden", "true");
  for (const [name, , taken] of shares) {
    const part = element("span", { className: name });
    part.style.setProperty("flex-grow", String(taken));
    bar.append(part);
  }
  const list = element(
    "ul",
    {},
    ...shares.map(([name, words, taken]) => {
      const dot = element("span", { className: `dot ${name}` });
      dot.setAttribute("aria-hidden", "true");
      return element("li", {}, dot, `${words} ${milliseconds(taken)}`);
    }),
  );
  return [element("p", {}, `Answered in ${milliseconds(total)}`), bar, list];
}

const TITLES = {
  0: "No answer",
  401: "A key is needed",
  404: "The model is not there",
  413: "The picture is too large",
  415: "This is not a picture that the service reads",
  422: "The picture cannot be read",
  500: "The service failed",
  503: "The service is busy",
  504: "It took too long",
};

/** Return an error in the service's words, with a button for `again` if that may help. */
export function trouble(problem, again) {
  const nodes = [element("h3", {}, TITLES[problem.status] ?? "That did not work"), element("p", {}, problem.message)];
  if (problem.requestId) {
    const id = element("code", {}, problem.requestId);
    nodes.push(element("p", { className: "quiet" }, `Status ${problem.status}. In the service’s log it is `, id, "."));
  }
  const isInWhatWasSent = problem.status >= 400 && problem.status < 500 && problem.status !== 404;
  if (!isInWhatWasSent) nodes.push(element("button", { type: "button", onclick: again }, "Try again"));
  return nodes;
}
