/* The timeline: pictures and clips pinned at frames, each with a strength.

A pin is dragged on the track, moved with the arrow keys, or set in the list under it. On the track it snaps to every
eighth frame, where the model's latents are (clips can begin nowhere else); the list takes any frame for a picture. */

import { getJson, inMemory, upload } from "./api.js";
import { agree, byId, h, iconButton, number, say } from "./dom.js";

const GRID = 8;
const HALF = 24; // pixels of half a pin
const KEYFRAME = /^(.+?)(?:\[(-?\d+)?:(-?\d+)?\])?@(-?\d+)(?::(\d*\.?\d+))?$/;
const UNKNOWN = "Kept with the video it was given to";

/** What the gallery calls a video that is dragged. */
export const OWN_VIDEO = "application/x-openltx-video";

/** One pin: what it shows, where, how firmly, and its two elements. */
class Pin {
  id = null; // the server's identifier, once it is uploaded
  kind = "picture";
  frames = 1;
  frame = 0;
  strength = 1;
  first = null; // which frames of a clip, as Python's slices
  end = null;
  name = "";
  thumb = null; // an address in memory
  isVideo = false; // whether that is a video
  uploaded = Promise.resolve();

  constructor(fields) {
    Object.assign(this, fields);
  }

  get conditioning() {
    const { id, frame, strength, first, end } = this;
    return { file_id: id, frame, strength, ...(first === null ? {} : { first }), ...(end === null ? {} : { end }) };
  }
}

class Timeline extends EventTarget {
  #pins = [];
  #frames = 49;
  #fps = 24;
  #track = byId("track");

  constructor() {
    super();
    const chooser = byId("choose");
    byId("add").addEventListener("click", () => chooser.click());
    chooser.addEventListener("change", () => {
      for (const file of chooser.files) this.add(file);
      chooser.value = "";
    });
    this.#track.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.#mark(this.#frameAt(event.clientX));
    });
    this.#track.addEventListener("dragleave", () => this.#mark(null));
    this.#track.addEventListener("drop", (event) => this.#drop(event));
    this.#draw();
  }

  /** How long the video will be; pins at its end stay there, others inside it. */
  resize(frames, fps) {
    if (frames === this.#frames && fps === this.#fps) return;
    const last = this.#frames - 1;
    this.#frames = frames;
    this.#fps = fps;
    for (const pin of this.#pins) pin.frame = this.#placed(pin, pin.frame === last ? frames - 1 : pin.frame);
    this.#draw();
  }

  /** Wait until no upload is under way. */
  async uploaded() {
    await Promise.all(this.#pins.map((pin) => pin.uploaded));
  }

  /** What POST /v1/videos takes as its `conditioning`, without what is still being uploaded. */
  get conditioning() {
    return this.#pins.filter((pin) => pin.id).map((pin) => pin.conditioning);
  }

  /** Pin a file of the visitor at a frame; if none is named, at the start, then at the end. */
  add(file, frame = null) {
    const isVideo = file.type.startsWith("video/");
    const name = file.name || "Pasted picture";
    const pin = new Pin({ kind: isVideo ? "clip" : "picture", isVideo, name, thumb: URL.createObjectURL(file) });
    pin.frame = this.#placed(pin, frame ?? this.#free());
    pin.uploaded = this.#upload(pin, file);
    this.#pins.push(pin);
    this.#changed();
  }

  /** Pin a finished video, or the frames `first` to `end` of it. */
  addVideo(job, { frame = 0, first = null, end = null } = {}) {
    const pin = new Pin({ id: job.id, name: job.prompt, first, end, isVideo: true });
    this.#measure(pin, Number(job.request.frames ?? 1));
    if (pin.kind === "picture") pin.name = `A frame of “${job.prompt}”`;
    pin.frame = this.#placed(pin, frame);
    this.#show(pin).catch((error) => say(error.message, { isProblem: true }));
    this.#pins.push(pin);
    this.#changed();
  }

  /** Replace all pins by those of a request: its image, its keyframes as text, its conditioning as objects. */
  load({ image = null, image_strength: strength = 1, keyframes = [], conditioning = [] }) {
    const given = image ? [{ file_id: String(image), frame: 0, strength }] : [];
    for (const text of keyframes) {
      const [, id, first, end, frame, held] = KEYFRAME.exec(text) ?? [];
      if (id) given.push({ file_id: id, frame: Number(frame), strength: Number(held ?? 1), first, end });
    }
    this.#pins = [...given, ...conditioning].map(({ file_id: id, frame, strength: held, first, end }) => {
      const [from, to] = [first, end].map((edge) => (edge === undefined || edge === null ? null : Number(edge)));
      const place = frame < 0 ? frame + this.#frames : frame;
      return new Pin({ id, frame: place, strength: held, first: from, end: to, isVideo: id.startsWith("video_") });
    });
    for (const pin of this.#pins) this.#describe(pin);
    this.#changed();
  }

  async #upload(pin, file) {
    try {
      const { id, kind, frames } = await upload(file);
      Object.assign(pin, { id, kind, frames });
      pin.frame = this.#placed(pin, pin.frame);
    } catch (error) {
      if (!error.isShown) say(`${pin.name}: ${error.message}`, { isProblem: true });
      this.#pins = this.#pins.filter((other) => other !== pin);
    }
    this.#changed();
  }

  /** What an identifier of a loaded request stands for; it may be gone from the server. */
  async #describe(pin) {
    try {
      if (pin.isVideo) {
        const { prompt, request } = await getJson(`/v1/videos/${pin.id}`);
        pin.name = prompt;
        this.#measure(pin, Number(request.frames ?? 1));
      } else {
        const { filename, kind, frames } = await getJson(`/v1/files/${pin.id}`);
        Object.assign(pin, { name: filename, kind, isVideo: kind === "clip" });
        this.#measure(pin, frames);
      }
      await this.#show(pin);
    } catch {
      pin.name ||= UNKNOWN;
      this.#draw();
    }
  }

  async #show(pin) {
    pin.thumb = await inMemory(`/v1/${pin.id.startsWith("video_") ? "videos" : "files"}/${pin.id}/content`);
    this.#draw();
  }

  /** How many frames a pin takes of a file that has so many. */
  #measure(pin, whole) {
    const at = (edge, otherwise) => (edge === null ? otherwise : edge < 0 ? edge + whole : edge);
    pin.frames = Math.max(Math.min(at(pin.end, whole), whole) - at(pin.first, 0), 1);
    pin.kind = pin.frames > 1 ? "clip" : "picture";
  }

  #free() {
    const isTaken = (frame) => this.#pins.some((pin) => pin.frame === frame);
    return isTaken(0) && !isTaken(this.#frames - 1) ? this.#frames - 1 : 0;
  }

  /** The nearest frame at which a pin may be. */
  #placed(pin, frame) {
    const step = pin.kind === "clip" ? GRID : 1;
    const last = Math.max(this.#frames - Math.min(pin.frames, this.#frames), 0);
    return Math.min(Math.max(Math.round(frame / step) * step, 0), Math.floor(last / step) * step);
  }

  #frameAt(x) {
    const box = this.#track.getBoundingClientRect();
    const share = Math.min(Math.max((x - box.left - HALF) / (box.width - 2 * HALF), 0), 1);
    return Math.min(Math.round((share * (this.#frames - 1)) / GRID) * GRID, this.#frames - 1);
  }

  #drop(event) {
    event.preventDefault();
    event.stopPropagation();
    this.#mark(null);
    const frame = this.#frameAt(event.clientX);
    const id = event.dataTransfer.getData(OWN_VIDEO);
    if (id) this.dispatchEvent(new CustomEvent("video", { detail: { id, frame } }));
    for (const file of event.dataTransfer.files) this.add(file, frame);
  }

  /** Show where something would be dropped. */
  #mark(frame) {
    byId("mark").hidden = frame === null;
    if (frame === null) return;
    byId("mark").style.left = this.#left(frame);
    byId("mark").textContent = `frame ${frame}`;
  }

  #left(frame) {
    return `calc((100% - 3rem) * ${frame / Math.max(this.#frames - 1, 1)})`;
  }

  #move(pin, frame) {
    pin.frame = this.#placed(pin, frame);
    this.#changed();
  }

  #remove(pin) {
    this.#pins = this.#pins.filter((other) => other !== pin);
    this.#changed();
    (this.#pins[0]?.handle ?? byId("add")).focus();
  }

  #changed() {
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #draw() {
    byId("ruler").replaceChildren(...this.#ticks());
    for (const pin of this.#pins) {
      pin.handle ??= this.#handle(pin);
      pin.row ??= this.#row(pin);
      this.#refresh(pin);
    }
    agree(byId("handles"), this.#pins.map((pin) => pin.handle));
    agree(byId("pins"), this.#pins.map((pin) => pin.row));
    this.#track.classList.toggle("bare", this.#pins.length === 0);
  }

  #ticks() {
    const every = [8, 16, 24, 48, 96].find((step) => this.#frames / step <= 9) ?? 192;
    const ticks = [];
    for (let frame = 0; frame < this.#frames; frame += every) {
      const tick = h("span", { class: "tick" }, String(frame));
      tick.style.left = `calc(${this.#left(frame)} + 1.5rem)`;
      ticks.push(tick);
    }
    return ticks;
  }

  /** A pin on the track: a slider over the video's frames. */
  #handle(pin) {
    const handle = h("div", { role: "slider", tabindex: "0", "aria-valuemin": "0" });
    handle.addEventListener("keydown", (event) => this.#key(event, pin));
    handle.addEventListener("pointerdown", (event) => this.#drag(event, pin));
    return handle;
  }

  #key(event, pin) {
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    const edge = { Home: 0, End: this.#frames - 1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") this.#remove(pin);
    else if (way) this.#move(pin, pin.frame + way * (pin.kind === "clip" || event.shiftKey ? GRID : 1));
    else if (edge !== undefined) this.#move(pin, edge);
    else return;
    event.preventDefault();
  }

  #drag(event, pin) {
    const grip = event.clientX - pin.handle.getBoundingClientRect().left - HALF;
    const move = (now) => {
      pin.frame = this.#placed(pin, this.#frameAt(now.clientX - grip));
      this.#refresh(pin);
    };
    const stop = () => {
      pin.handle.removeEventListener("pointermove", move);
      this.#changed();
    };
    pin.handle.setPointerCapture(event.pointerId);
    pin.handle.addEventListener("pointermove", move);
    pin.handle.addEventListener("lostpointercapture", stop, { once: true });
  }

  /** A pin in the list: the same in words and numbers. */
  #row(pin) {
    const frame = h("input", { type: "number", min: "0", "aria-label": "Frame" });
    const strength = h("input", { type: "range", min: "0.05", max: "1", step: "0.05", "aria-label": "Strength" });
    frame.addEventListener("change", () => this.#move(pin, Number(frame.value)));
    strength.addEventListener("input", () => {
      pin.strength = Number(strength.value);
      this.#changed();
    });
    return h("li", {}, h("span", { class: "name" }), h("label", {}, "Frame ", frame),
      h("label", {}, "Strength ", strength, h("output", {})),
      iconButton("close", "Remove this pin", () => this.#remove(pin), { class: "plain" }));
  }

  /** Both elements of a pin as it is now. */
  #refresh(pin) {
    const { handle, row } = pin;
    handle.className = `pin ${pin.kind}`;
    handle.title = pin.name;
    handle.setAttribute("aria-label", pin.name || "Pin");
    handle.setAttribute("aria-valuemax", String(this.#frames - 1));
    handle.setAttribute("aria-valuenow", String(pin.frame));
    handle.setAttribute("aria-valuetext", `frame ${pin.frame}, strength ${number(pin.strength)}`);
    const share = (Math.min(pin.frames, this.#frames) - 1) / Math.max(this.#frames - 1, 1);
    handle.style.left = this.#left(pin.frame);
    handle.style.width = `calc(3rem + (100% - 3rem) * ${share})`;
    handle.style.setProperty("--strength", pin.strength);
    if (pin.thumb && pin.pictured !== pin.thumb) {
      pin.pictured = pin.thumb;
      handle.replaceChildren(this.#picture(pin));
    }
    const [frame, strength] = row.querySelectorAll("input");
    row.querySelector(".name").textContent = pin.name + (pin.id ? "" : " (uploading …)");
    row.querySelector(".name").title = pin.name;
    frame.max = String(this.#frames - 1);
    frame.step = pin.kind === "clip" ? String(GRID) : "1";
    frame.value = String(pin.frame);
    strength.value = String(pin.strength);
    row.querySelector("output").textContent = number(pin.strength);
  }

  #picture(pin) {
    if (!pin.isVideo) return h("img", { class: "thumb", src: pin.thumb, alt: "" });
    const video = h("video", { class: "thumb", src: pin.thumb, muted: true, preload: "auto", tabindex: "-1" });
    video.addEventListener("loadedmetadata", () => {
      const start = ((pin.first ?? 0) + 0.5) / this.#fps;
      video.currentTime = Math.max(start < 0 ? video.duration + start : start, 0);
    });
    return video;
  }
}

export const timeline = new Timeline();
