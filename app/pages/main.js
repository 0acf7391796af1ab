// Puts the page together. `data-state` of the body says which state it is in; the styles and the tests go by it.

import { AnswerPanel, trouble } from "./answer.js";
import { Camera, isPossible } from "./camera.js";
import { Gallery } from "./gallery.js";
import { programs } from "./programs.js";
import { Pad } from "./pad.js";
import * as service from "./service.js";
import { byId, bytes, element, sentence, several, titleOf } from "./words.js";

const MOST_SAMPLES = 10;

const camera = new Camera(byId("live"));
const pad = new Pad(byId("pad"), { onChange: () => withKey(classifyDrawing, startDrawing) });
const gallery = new Gallery(byId("gallery").querySelector("ul"), { onChange: tellProgress, onOpen: open });

let facts;
let versions = []; // live ones and previews
let panels = [];
let picture; // the file that is shown
let opened; // the entry of the gallery that it is
let said; // the label that was announced last, while the camera is on or somebody draws
let isDrawing = false;
let isAsking = false; // about the drawing
let work = new AbortController();

function enter(state) {
  document.body.dataset.state = state;
  byId("key").hidden = state !== "key";
  byId("gallery").hidden = state !== "many";
  byId("desk").hidden = ["starting", "key", "many"].includes(state);
  byId("why").hidden = state !== "answer" || !facts.explanations;
  byId("result").setAttribute("aria-busy", String(state === "loading"));
}

/** Have a screen reader say this. */
function say(text) {
  byId("said").replaceChildren(element("span", {}, text)); // a new element is read out even if it says the same
}

// The start, and the key

async function start() {
  facts ??= await service.facts();
  versions = await service.versions();
  byId("more").hidden = !facts.docs;
  byId("files").accept = ["image/*", ...facts.formats.map((format) => `.${format}`)].join();
  const options = () => versions.map((each, index) => new Option(titleOf(each), index));
  byId("model").replaceChildren(...options());
  byId("beside").replaceChildren(new Option("none", ""), ...options());
  byId("model").value = Math.max(0, versions.findIndex(({ name }) => name === facts.model));
  byId("models").hidden = versions.length < 2;
  byId("camera").disabled = !isPossible();
  byId("no-camera").hidden = isPossible();
  await turnToModel();
}

async function turnToModel() {
  const first = versions[byId("model").value];
  const second = versions[byId("beside").value];
  panels = [first, second].filter(Boolean).map((model) => new AnswerPanel(model));
  byId("answers").replaceChildren(...panels.map((panel) => panel.node));
  byId("about").textContent = `Give this page a picture, and the model ${first.name} says which of ${several(
    first.labels.length,
    "label",
  )} fits it best.`;
  writeProgram("curl");
  byId("draw").hidden = !(await service.knowsDrawings(first));
  if (isDrawing && byId("draw").hidden) stopDrawing();
  if (camera.isOn) return;
  if (isDrawing) return classifyDrawing();
  if (picture) look(picture);
  else enter("empty");
  if (facts.samples) await showSamples(first);
}

/** Run a step. If it needs a key, ask for one and run `again` with that; if it fails otherwise, say so and offer that. */
async function withKey(step, again = step) {
  try {
    await step();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForKey(error, again);
    else showProblem(error, again);
  }
}

function askForKey(problem, again) {
  stopCamera();
  stopDrawing();
  enter("key");
  byId("key-reason").textContent = service.hasKey()
    ? problem.message
    : "Whoever runs the service gives out keys. Paste yours here.";
  byId("key").onsubmit = (event) => {
    event.preventDefault();
    service.useKey(byId("key-value").value.trim());
    byId("key-value").value = "";
    withKey(again);
  };
  byId("key-value").focus();
  say(byId("key-reason").textContent);
}

function showProblem(problem, again) {
  stopCamera();
  stopDrawing();
  enter("error");
  byId("problem").replaceChildren(...trouble(problem, () => withKey(again)));
  byId("problem").hidden = false;
  say(problem.message);
  bringIntoSight(byId("problem"));
}

/** On a narrow screen the answer is below the picture. */
function bringIntoSight(node) {
  node.scrollIntoView({ block: "nearest" });
}

// One picture

/** Show a picture and have it classified. */
function look(file, caption = file.name) {
  stopCamera();
  stopDrawing();
  show(file, caption);
  return withKey(() => classifyShown(file));
}

async function classifyShown(file) {
  work.abort();
  work = new AbortController();
  enter("loading");
  byId("problem").hidden = true;
  const answers = await classify(file, work.signal);
  enter("answer");
  say(answers.map(sentence).join(" "));
  bringIntoSight(panels[0].headline);
}

/** Ask each model that is shown, one after another, and show its answer. */
async function classify(file, signal) {
  const answers = [];
  for (const panel of panels) {
    const onBusy = ({ message }, seconds) => {
      byId("problem").replaceChildren(element("p", {}, `${message} Asking again in ${several(seconds, "second")}.`));
      byId("problem").hidden = false;
      say(message);
    };
    const result = await service.classify(file, panel.model, { signal, onBusy });
    byId("problem").hidden = true;
    panel.show(result);
    answers.push(result.answer);
  }
  return answers;
}

function show(file, caption) {
  picture = file;
  hideHeat();
  const image = byId("shown");
  URL.revokeObjectURL(image.src);
  byId("invitation").hidden = true;
  byId("not-shown").hidden = true;
  image.hidden = false;
  image.alt = `The picture: ${caption}`;
  const size = bytes(file.size);
  byId("caption").textContent = `${caption}, ${size}`;
  image.onload = () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    image.classList.toggle("tiny", Math.max(width, height) < 128);
    byId("caption").textContent = `${caption}, ${width} × ${height}, ${size}`;
  };
  image.onerror = () => {
    image.hidden = true;
    byId("not-shown").hidden = false;
  };
  image.src = URL.createObjectURL(file);
  writeProgram("curl");
}

function showNothing() {
  picture = undefined;
  hideHeat();
  byId("shown").hidden = byId("not-shown").hidden = byId("problem").hidden = true;
  byId("invitation").hidden = false;
  byId("caption").textContent = "";
  for (const panel of panels) panel.clear();
  enter("empty");
}

// Why: the heat map lies over the picture

async function showHeat() {
  const { signal } = work;
  byId("explain").disabled = true;
  try {
    const drawn = await service.explain(picture, panels[0].model, { signal });
    const heat = byId("heat");
    heat.onload = () => {
      byId("strength").hidden = heat.hidden = false;
      byId("explain").hidden = true;
      byId("heat-strength").focus();
    };
    heat.alt = "The same picture under a heat map: red places speak most for the answer.";
    heat.src = URL.createObjectURL(drawn);
    say("The heat map is shown.");
  } finally {
    byId("explain").disabled = false;
  }
}

function hideHeat() {
  URL.revokeObjectURL(byId("heat").src);
  byId("heat").hidden = byId("strength").hidden = true;
  byId("explain").hidden = false;
  setStrength(100);
}

function setStrength(percent) {
  byId("heat-strength").value = percent;
  byId("heat").style.setProperty("--strength", String(percent / 100));
}

async function showSamples(model) {
  const all = await service.samples(model);
  const firsts = all.filter(({ label }, index) => all.findIndex((other) => other.label === label) === index);
  const some = [...firsts, ...all.filter((each) => !firsts.includes(each))].slice(0, MOST_SAMPLES);
  const chips = await Promise.all(some.map(chip));
  byId("samples").querySelector("ul").replaceChildren(...chips);
  byId("samples").hidden = false;
}

async function chip({ label, picture: address }, index) {
  const blob = await service.sample(address);
  const file = new File([blob], `sample-${index + 1}.${blob.type.replace("image/", "")}`, { type: blob.type });
  const image = element("img", { alt: `Sample: ${label}`, src: URL.createObjectURL(blob) });
  image.onerror = () => image.replaceWith(label);
  const onclick = () => look(file, `A sample, labelled “${label}”`);
  return element("li", {}, element("button", { type: "button", onclick }, image));
}

// Many pictures

function take(files) {
  const [first] = files;
  if (first === undefined || panels.length === 0) return;
  opened = undefined;
  byId("back").hidden = true;
  if (files.length === 1) {
    look(first);
    return;
  }
  stopCamera();
  stopDrawing();
  work.abort();
  withKey(() => classifyAll(files));
}

async function classifyAll(files) {
  enter("many");
  let refused;
  await gallery.start(files, async (file, signal) => {
    try {
      return await service.classify(file, panels[0].model, { signal });
    } catch (error) {
      if (error.status === 401) {
        refused ??= error;
        gallery.stop();
      }
      throw error;
    }
  });
  if (refused) throw refused;
  say(byId("progress").textContent);
}

function tellProgress() {
  const { entries, done, failed, isBusy } = gallery;
  const failures = failed > 0 ? `, ${failed} of them with an error` : "";
  const stopped = done < entries.length && !isBusy ? " Stopped." : "";
  byId("progress").textContent = `${done} of ${several(entries.length, "picture")} answered${failures}.${stopped}`;
  byId("stop").disabled = !isBusy;
}

function open(entry) {
  opened = entry;
  look(entry.file);
  byId("back").hidden = false;
  byId("back").focus();
}

function goBack() {
  work.abort();
  byId("back").hidden = true;
  enter("many");
  opened.button.focus();
}

function clear() {
  gallery.clear();
  byId("back").hidden = true;
  showNothing();
  byId("choose").focus();
}

function download() {
  const address = URL.createObjectURL(new Blob([gallery.csv()], { type: "text/csv" }));
  element("a", { href: address, download: "answers.csv" }).click();
  URL.revokeObjectURL(address);
}

// The camera

async function startCamera() {
  stopDrawing();
  work.abort();
  work = new AbortController();
  const { signal } = work;
  byId("problem").hidden = true;
  said = undefined;
  await camera.start((frame) => withKey(() => classifyFrame(frame, signal), startCamera));
  byId("invitation").hidden = byId("shown").hidden = byId("not-shown").hidden = true;
  byId("live").hidden = byId("capture").hidden = false;
  byId("camera").textContent = "Stop the camera";
  byId("caption").textContent = "The camera is on: the model is asked up to five times a second.";
  enter("camera");
}

async function classifyFrame(frame, signal) {
  const answers = await classify(frame, signal);
  announce(answers);
  if (camera.isOn) enter("camera");
}

/** Say answers of a picture that keeps changing, if they name other labels than before. */
function announce(answers) {
  const labels = answers.map(({ label }) => label).join();
  if (labels !== said) say(answers.map(sentence).join(" "));
  said = labels;
}

function stopCamera() {
  if (!camera.isOn) return;
  camera.stop();
  work.abort();
  byId("live").hidden = byId("capture").hidden = true;
  byId("camera").textContent = "Use the camera";
  showNothing();
}

async function capture() {
  const frame = await camera.picture();
  look(new File([frame], "camera.jpg", { type: "image/jpeg" }));
}

// The sheet to draw on

function startDrawing() {
  stopCamera();
  work.abort();
  work = new AbortController();
  isDrawing = true;
  byId("invitation").hidden = byId("shown").hidden = byId("not-shown").hidden = byId("problem").hidden = true;
  showTools(true);
  byId("draw").textContent = "Stop drawing";
  enter("drawing");
  return classifyDrawing();
}

/** Ask about what is drawn now, and once more if more was drawn meanwhile. */
async function classifyDrawing() {
  byId("pad").dataset.answered = "false";
  if (!isDrawing || isAsking) return;
  isAsking = true;
  const { signal } = work;
  try {
    for (let asked; isDrawing && asked !== pad.changes; ) {
      asked = pad.changes;
      if (pad.isEmpty) showEmptySheet();
      else await classifySheet(signal);
    }
    byId("pad").dataset.answered = "true"; // all that is drawn
  } finally {
    isAsking = false;
  }
}

function showTools(areShown) {
  for (const id of ["pad", "undo", "wipe", "pen"]) byId(id).hidden = !areShown;
  for (const node of document.querySelectorAll(".not-drawing")) node.hidden = areShown;
}

async function classifySheet(signal) {
  const answers = await classify(await pad.picture(), signal);
  announce(answers);
  byId("caption").textContent = answers.map(sentence).join(" "); // on a phone, the answer's panel is out of sight
}

function showEmptySheet() {
  for (const panel of panels) panel.clear();
  said = undefined;
  byId("caption").textContent = "Draw one character anywhere, at any size: the model answers while you draw.";
}

function stopDrawing() {
  if (!isDrawing) return;
  isDrawing = false;
  work.abort();
  showTools(false);
  byId("draw").textContent = "Draw";
  showNothing();
}

// Programs

function writeProgram(language) {
  const written = programs({
    address: service.predictAddress(panels[0].model),
    file: picture?.name ?? "picture.png",
    needsKey: service.hasKey(),
  });
  byId("program").textContent = written[language];
  byId("copied").textContent = "";
  return written[language];
}

async function copy(language) {
  const text = writeProgram(language);
  try {
    await navigator.clipboard.writeText(text);
    byId("copied").textContent = `Copied as ${language}.`;
  } catch {
    // the page is not on https:// or localhost, or the browser does not allow it
    getSelection().selectAllChildren(byId("program"));
    byId("copied").textContent = "It is selected: copy it from there.";
  }
  say(byId("copied").textContent);
}

// What the person does

function listen() {
  byId("choose").onclick = byId("more-files").onclick = () => byId("files").click();
  byId("files").onchange = ({ target }) => {
    take([...target.files]);
    target.value = ""; // the same file may be chosen again
  };
  byId("camera").onclick = () => (camera.isOn ? stopCamera() : withKey(startCamera));
  byId("capture").onclick = capture;
  byId("explain").onclick = () => withKey(showHeat);
  byId("heat-strength").oninput = ({ target }) => setStrength(target.value);
  byId("draw").onclick = () => (isDrawing ? stopDrawing() : withKey(startDrawing));
  byId("undo").onclick = () => pad.undo();
  byId("wipe").onclick = () => pad.clear();
  byId("broad").onchange = ({ target }) => {
    pad.pen = target.checked ? "broad" : "fine";
  };
  byId("back").onclick = goBack;
  byId("model").onchange = byId("beside").onchange = () => withKey(turnToModel);
  byId("download").onclick = download;
  byId("stop").onclick = () => gallery.stop();
  byId("clear").onclick = clear;
  for (const button of byId("programs").querySelectorAll("[data-language]")) {
    button.onclick = () => copy(button.dataset.language);
  }
  document.addEventListener("paste", ({ clipboardData }) => {
    if (isAtWork()) take([...clipboardData.files]);
  });
  // Without this, a browser would leave the page for a file that is dropped on it.
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      const isOver = name === "dragover" && isAtWork() && event.dataTransfer.types.includes("Files");
      document.body.classList.toggle("dropping", isOver);
      if (name === "drop" && isAtWork()) take([...event.dataTransfer.files]);
    });
  }
}

const isAtWork = () => !["starting", "key"].includes(document.body.dataset.state);

listen();
withKey(start);
