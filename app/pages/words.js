// Elements and words. Text from outside reaches the page through here, as text: nothing assigns HTML.

/** Return an element with properties and children; a child that is a string becomes text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

const SPACE = "\u00a0";

/** Return a probability as a person reads it: nothing but 1 is 100 %, and nothing but 0 is 0 %. */
export function percent(probability) {
  const shown = (probability * 100).toFixed(1);
  if (shown === "100.0" && probability < 1) return `>${SPACE}99.9${SPACE}%`;
  if (shown === "0.0" && probability > 0) return `<${SPACE}0.1${SPACE}%`;
  return `${shown.replace(/\.0$/, "")}${SPACE}%`;
}

export function milliseconds(value) {
  if (value < 0.05) return `<${SPACE}0.1${SPACE}ms`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)}${SPACE}ms`;
}

export function bytes(count) {
  if (count < 1000) return `${count}${SPACE}bytes`;
  if (count < 1e6) return `${(count / 1e3).toFixed(1)}${SPACE}kB`;
  return `${(count / 1e6).toFixed(1)}${SPACE}MB`;
}

export const several = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Return what a version is called: the live one has its model's name. */
export const titleOf = ({ name, version, isPreview }) => (isPreview ? `${name}, version ${version} (preview)` : name);

// What an answer's field `decision` says beside the label; "label" needs no word.
const DECISIONS = {
  unsure: ["Unsure", "The probability is below what this model needs to be sure."],
  unfamiliar: ["Unfamiliar", "The picture is unlike those that the model has learned from."],
};

/** Return a word and a sentence for a decision, or undefined if the model is sure. */
export function decisionWords(decision) {
  if (decision === undefined || decision === "label") return undefined;
  return Object.hasOwn(DECISIONS, decision) ? DECISIONS[decision] : [String(decision), ""];
}

/** Return an answer as one sentence, for a screen reader. */
export function sentence(answer) {
  const decision = decisionWords(answer.decision);
  return `${decision ? `${decision[0]}: ` : ""}${answer.label}, ${percent(answer.probability)}.`;
}
