// Pictures from the camera: one in flight, at most five a second, none while the page is not in sight.

const SHORTEST_INTERVAL_MS = 200;
const MOST_PIXELS_A_SIDE = 640; // models see fewer

const REASONS = {
  NotAllowedError: "The browser may not use the camera. Allow it beside the address, then try again.",
  NotFoundError: "There is no camera. Connect one, or choose a picture.",
  NotReadableError: "The camera is in use by another program. Close that, then try again.",
};

/** Browsers give the camera to pages on https:// and localhost alone. */
export const isPossible = () => Boolean(navigator.mediaDevices?.getUserMedia);

export class Camera {
  #video;
  #stream;
  #canvas = document.createElement("canvas");

  constructor(video) {
    this.#video = video;
  }

  get isOn() {
    return this.#stream !== undefined;
  }

  /** Start, and give pictures to `ask` until `stop`; the next one is taken when `ask` is done. Raises a sentence. */
  async start(ask) {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? "The camera does not work. Choose a picture instead.");
    }
    this.#stream = stream;
    this.#video.srcObject = stream;
    await this.#video.play();
    this.#run(stream, ask);
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = undefined;
    this.#video.srcObject = null;
  }

  /** Return what the camera sees now, as a JPEG. */
  async picture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const scale = Math.min(1, MOST_PIXELS_A_SIDE / Math.max(width, height));
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#canvas.getContext("2d").drawImage(this.#video, 0, 0, this.#canvas.width, this.#canvas.height);
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", 0.92));
  }

  async #run(stream, ask) {
    while (this.#stream === stream) {
      const picture = document.hidden ? null : await this.picture(); // null, too, until the first one has come
      const next = new Promise((resolve) => setTimeout(resolve, SHORTEST_INTERVAL_MS));
      if (picture !== null && this.#stream === stream) await ask(picture);
      await next;
    }
  }
}
