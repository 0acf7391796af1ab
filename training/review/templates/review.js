// The page of a review. Whatever comes from outside (file names, labels, errors) is text, never markup.

const element = (id) => document.getElementById(id);
const pictures = element("pictures");
const buttons = Object.fromEntries([...document.querySelectorAll("[data-do]")].map((each) => [each.dataset.do, each]));
const AHEAD = 3;
const MOST_LABELS = 9;

let asked = { data: "", after: "", labels: [], questions: [] };
let at = 0;
let chosen = 0;
let offered = [];
let busy = false;
const images = new Map();

const labelButtons = Array.from({ length: MOST_LABELS }, (_, place) => {
  const button = document.createElement("button");
  const key = document.createElement("kbd");
  key.textContent = String(place + 1);
  button.type = "button";
  button.setAttribute("aria-keyshortcuts", key.textContent);
  button.append(key, " ", document.createElement("span"));
  button.addEventListener("click", () => relabel(offered[place]?.[0]));
  element("labels").append(button);
  return button;
});

// What has been decided

const current = () => asked.questions[at];
const isOpen = (question) => question.answer === null;
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Return the question in which somebody dropped one of this question's pictures, if that is another one. */
function droppedElsewhere(question) {
  return asked.questions.find(
    (other) =>
      other !== question &&
      other.answer?.action === "drop" &&
      question.pictures.some((picture) => picture.id === other.pictures[other.answer.picture].id),
  );
}

function labelNow(picture) {
  for (const question of asked.questions) {
    const answer = question.answer;
    if (answer?.action === "relabel" && question.pictures[answer.picture].id === picture.id) return answer.label;
  }
  return picture.label;
}

const needsAnswer = (question) => isOpen(question) && !droppedElsewhere(question);

function nextOpen(from) {
  const count = asked.questions.length;
  for (let step = 0; step < count; step += 1) {
    const place = (from + step) % count;
    if (needsAnswer(asked.questions[place])) return place;
  }
  return count;
}

function toldAnswer(question) {
  const { action, label, picture } = question.answer ?? {};
  const which = question.pictures.length > 1 && picture === 1 ? " (the second picture)" : "";
  if (action === "relabel") return `Decided: ${label}${which}`;
  if (action === "keep") return question.pictures.length > 1 ? "Decided: keep both" : "Decided: keep";
  if (action === "drop") return `Decided: drop${which}`;
  if (action === "later") return "Left for later";
  return droppedElsewhere(question) ? "A picture of this was dropped, so there is nothing to decide" : "";
}

// What is shown

function imageOf(number, place) {
  const path = `/pictures/${number}/${place}`;
  if (!images.has(path)) {
    const image = new Image();
    image.alt = "";
    image.decoding = "async";
    image.src = path;
    image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 64));
    images.set(path, image);
  }
  return images.get(path);
}

function preload() {
  const wanted = new Set();
  const keep = (number) =>
    asked.questions[number]?.pictures.forEach((_, place) => {
      imageOf(number, place);
      wanted.add(`/pictures/${number}/${place}`);
    });
  keep(at);
  for (let ahead = 1, number = at; ahead <= AHEAD && number < asked.questions.length; ahead += 1) {
    number = nextOpen(number + 1);
    keep(number);
  }
  keep(at + 1);
  keep(at - 1);
  for (const path of images.keys()) if (!wanted.has(path)) images.delete(path);
}

function figureOf(picture, place) {
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const label = document.createElement("b");
  const image = imageOf(at, place);
  label.textContent = labelNow(picture);
  const rest = [picture.split, picture.id].filter(Boolean).join(" · ");
  caption.append(label, document.createElement("br"), rest);
  image.alt = `${picture.id}, called ${labelNow(picture)}`;
  const unreadable = () => {
    const none = document.createElement("div");
    none.className = "none";
    none.textContent = "This file cannot be shown as a picture.";
    image.replaceWith(none);
  };
  figure.append(image, caption);
  if (image.complete && image.naturalWidth === 0) unreadable();
  else image.addEventListener("error", unreadable, { once: true });
  figure.classList.toggle("chosen", place === chosen);
  return figure;
}

function labelsFor(question) {
  const now = labelNow(question.pictures[chosen]);
  const likely = chosen === 0 ? question.likely : [];
  const others = new Map(likely.filter(([label]) => asked.labels.includes(label)));
  if (question.pictures.length > 1) {
    const beside = labelNow(question.pictures[1 - chosen]);
    if (!others.has(beside)) others.set(beside, null);
  }
  for (const label of asked.labels) if (!others.has(label)) others.set(label, null);
  others.delete(now);
  return [...others].slice(0, MOST_LABELS);
}

function show() {
  const question = current();
  const total = asked.questions.length;
  const left = asked.questions.filter(needsAnswer).length;
  element("counted").textContent =
    `${(total - left).toLocaleString("en")} of ${plural(total, "question")} decided` +
    (question ? `; this is number ${(at + 1).toLocaleString("en")}` : "");
  element("progress").max = Math.max(1, total);
  element("progress").value = total - left;
  preload();
  element("panel").classList.toggle("end", !question);
  for (const id of ["reasons", "labels", "other"]) element(id).hidden = !question;
  pictures.classList.toggle("two", question?.pictures.length > 1);
  pictures.replaceChildren(...(question?.pictures ?? []).map(figureOf));
  buttons.keep.disabled = !question?.can_keep;
  buttons.drop.disabled = buttons.later.disabled = !question;
  buttons.swap.hidden = !(question?.pictures.length > 1);
  buttons.back.disabled = at === 0;
  buttons.on.disabled = !question;
  buttons.open.disabled = left === 0;
  if (!question) {
    element("asked").textContent = total ? "All are decided." : "Nothing was found.";
    element("answer").textContent = total ? `Next: ${asked.after}` : "";
    return;
  }
  element("asked").textContent = `${question.check}: called ${labelNow(question.pictures[chosen])}`;
  element("reasons").replaceChildren(
    ...question.reasons.map((reason) => {
      const item = document.createElement("li");
      item.textContent = reason;
      return item;
    }),
  );
  element("answer").textContent = toldAnswer(question);
  const { action, label, picture } = question.answer ?? {};
  buttons.keep.querySelector("span").textContent = question.pictures.length > 1 ? "Keep both" : "Keep";
  for (const name of ["keep", "drop", "later"]) {
    buttons[name].setAttribute("aria-pressed", String(action === name && (name !== "drop" || picture === chosen)));
  }
  offered = labelsFor(question);
  labelButtons.forEach((button, place) => {
    const entry = offered[place];
    button.hidden = !entry;
    if (!entry) return;
    const [name, probability] = entry;
    button.lastElementChild.textContent = probability === null ? name : `${name} ${probability.toFixed(2)}`;
    button.setAttribute("aria-pressed", String(action === "relabel" && label === name && picture === chosen));
  });
}

function say(before) {
  const question = current();
  const left = asked.questions.filter(needsAnswer).length;
  const next = question
    ? `${element("asked").textContent}. ${question.reasons.join(" ")} ${toldAnswer(question)}`
    : element("asked").textContent;
  element("said").textContent = `${before} ${left.toLocaleString("en")} left. ${next}`;
}

function go(place, before = "") {
  at = Math.max(0, Math.min(place, asked.questions.length));
  const answer = current()?.answer;
  chosen = answer && answer.action !== "keep" ? answer.picture : 0;
  element("label").value = "";
  show();
  say(before);
  document.documentElement.dataset.at = String(at);
}

// What is done

async function send(path, body) {
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    let found = {};
    try {
      found = JSON.parse(text);
    } catch {
      found = { error: text };
    }
    if (!response.ok) throw new Error(typeof found.error === "string" ? found.error : `Error ${response.status}.`);
    element("failed").textContent = "";
    return found;
  } catch (error) {
    const gone = error instanceof TypeError;
    element("failed").textContent = gone
      ? "Not saved: the review is not running any more. Start it again; what was decided before is kept."
      : error.message;
    return null;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

async function decide(action, label = "") {
  if (busy || !current()) return;
  const number = at;
  const given = { question: number, picture: action === "keep" || action === "later" ? 0 : chosen, action, label };
  const saved = await send("/answers", given);
  if (saved === null) return;
  asked.questions[number].answer = saved.answer;
  go(nextOpen(number + 1), `${toldAnswer(asked.questions[number])}.`);
}

function relabel(label) {
  if (label !== undefined) decide("relabel", label);
}

async function undo() {
  if (busy) return;
  const undone = await send("/undo", {});
  if (undone === null) return;
  if (undone.question === null) {
    element("said").textContent = "There is nothing to undo.";
    return;
  }
  asked.questions[undone.question].answer = undone.answer;
  go(undone.question, "Undone.");
}

function swap() {
  if (!(current()?.pictures.length > 1)) return;
  chosen = 1 - chosen;
  show();
  element("said").textContent = `Chosen: ${current().pictures[chosen].id}, called ${labelNow(current().pictures[chosen])}.`;
}

const actions = {
  keep: () => !buttons.keep.disabled && decide("keep"),
  drop: () => decide("drop"),
  later: () => decide("later"),
  undo,
  swap,
  back: () => go(at - 1),
  on: () => go(at + 1),
  open: () => go(nextOpen(at + 1)),
};
const keys = { k: "keep", d: "drop", l: "later", u: "undo", s: "swap", o: "open", arrowleft: "back", arrowright: "on" };

for (const [name, button] of Object.entries(buttons)) button.addEventListener("click", () => actions[name]());

element("other").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = element("label").value.trim();
  const label = asked.labels.find((each) => each === typed) ?? asked.labels.find((each) => each.toLowerCase() === typed.toLowerCase());
  if (label === undefined) {
    element("failed").textContent = `There is no class '${typed}' in this data.`;
    return;
  }
  element("asked").focus();
  relabel(label);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !element("keys").checked) return;
  if (event.target === element("label")) {
    if (event.key === "Escape") element("asked").focus();
    return;
  }
  const key = event.key.toLowerCase();
  if (key === "/") {
    event.preventDefault();
    element("label").focus();
  } else if (/^[1-9]$/.test(key)) {
    if (!event.repeat) relabel(offered[Number(key) - 1]?.[0]);
  } else if (key in keys && (!event.repeat || key.startsWith("arrow"))) {
    event.preventDefault();
    actions[keys[key]]();
  }
});

// The token is a cookie from now on.
history.replaceState(null, "", "/");
const response = await fetch("/questions");
if (response.ok) {
  asked = await response.json();
  document.title = `Review of ${asked.data}`;
  element("data").textContent = asked.data;
  element("classes").replaceChildren(
    ...asked.labels.map((label) => {
      const option = document.createElement("option");
      option.value = label;
      return option;
    }),
  );
  go(nextOpen(0));
} else {
  element("failed").textContent = await response.text();
}
