// A sheet to draw on, for models that know what is drawn. Drawings leave it as PNG, black on white.

const SIDE = 280;
const PENS = { fine: 8, broad: 16 }; // pixels of the sheet

export class Pad {
  #canvas;
  #context;
  #strokes = []; // each a pen and a list of points, in pixels of the sheet
  #stroke; // the one that is being drawn, by the pointer #pointer
  #pointer;
  #onChange;

  /** `onChange` is called whenever there is more or less on the sheet. */
  constructor(canvas, { onChange }) {
    canvas.width = canvas.height = SIDE;
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#onChange = onChange;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#end(event));
    this.#drawAll();
  }

  /** How often what is on the sheet has changed. */
  changes = 0;

  /** "fine" or "broad", for the next stroke. */
  pen = "broad";

  get isEmpty() {
    return this.#strokes.length === 0;
  }

  undo() {
    this.#strokes.pop();
    this.#drawAll();
    this.#change();
  }

  clear() {
    this.#strokes = [];
    this.#drawAll();
    this.#change();
  }

  picture() {
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/png"));
  }

  #change() {
    this.changes += 1;
    this.#onChange();
  }

  #begin(event) {
    if (this.#stroke || event.button !== 0) return; // a second finger, or another button
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#stroke = { width: PENS[this.pen], points: [this.#place(event)] };
    this.#strokes.push(this.#stroke);
    this.#draw(this.#stroke);
    this.#change();
  }

  #go(event) {
    if (!this.#stroke || event.pointerId !== this.#pointer) return;
    const places = event.getCoalescedEvents?.() ?? [];
    const { width, points } = this.#stroke;
    const from = points.length - 1;
    points.push(...(places.length > 0 ? places : [event]).map((each) => this.#place(each)));
    this.#draw({ width, points: points.slice(from) });
    this.#change();
  }

  #end(event) {
    if (event.pointerId === this.#pointer) this.#stroke = undefined;
  }

  #place({ clientX, clientY }) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [((clientX - left) / width) * SIDE, ((clientY - top) / height) * SIDE];
  }

  #drawAll() {
    this.#context.fillStyle = "#fff";
    this.#context.fillRect(0, 0, SIDE, SIDE);
    for (const stroke of this.#strokes) this.#draw(stroke);
  }

  #draw({ width, points: [first, ...others] }) {
    const context = this.#context;
    context.strokeStyle = "#000";
    context.lineWidth = width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...first);
    for (const point of others.length > 0 ? others : [first]) context.lineTo(...point); // alone, a dot
    context.stroke();
  }
}
