/* The form: what the video shows and how it is made, what that would cost, and the order itself.

Only what differs from the model's own settings is sent. Settings that were loaded from a video and have no control here
are kept and named. */

import { ApiError, postJson } from "./api.js";
import { byId, bytes, duration, h, iconButton, number } from "./dom.js";
import { jobs } from "./jobs.js";
import { NUMBERS, NumberSetting, SizeSetting } from "./settings.js";
import { timeline } from "./timeline.js";

const DRAFT = "openltx.draft";
const EXAMPLES = {
  playroom: [
    "a red ball bounces on a checkered floor",
    "a blue cube slides to the right on a wooden floor, in front of a beige wall",
    "a yellow cone topples over on green grass under a blue sky",
    "a purple ball rolls to the left on a white marble floor at sunset",
    "a green ball swings above a grey concrete floor in front of a grey wall",
  ],
  other: [
    "A lighthouse on a cliff at dusk. Waves break on the rocks below, its beam sweeps slowly through fog. Wide shot.",
    "A close-up of hands that knead dough on a floured wooden table in soft morning light from a window on the left.",
    "An old tram climbs a steep street in light rain. The camera follows it; wet cobblestones mirror the shop signs.",
    "A paper boat drifts along a gutter stream past autumn leaves. Low angle, shallow depth of field, slow motion.",
  ],
};
const ELSEWHERE = ["prompt", "negative", "size", "seed", "image", "image_strength", "keyframes", "conditioning", "fit",
  "model", "prompt_embeds", "original_prompt", ...NUMBERS.map((setting) => setting.name)];
const DEFAULTS = { noise_layout: "openltx", priority: 0, image_crf: 0, window: null };

class Compose extends EventTarget {
  #prompt = byId("prompt");
  #negative = byId("negative");
  #seed = byId("seed");
  #numbers = {};
  #defaults = {};
  #kept = {}; // loaded settings without a control
  #continued = null; // the video that is extended
  #planning = null;
  #timer = 0;

  constructor() {
    super();
    const changed = () => this.#changed();
    for (const setting of NUMBERS) {
      this.#numbers[setting.name] = new NumberSetting(setting, changed);
      byId(setting.more ? "more-settings" : "settings").append(this.#numbers[setting.name].element);
    }
    this.size = new SizeSetting(byId("size"), changed);
    for (const input of [this.#prompt, this.#negative, this.#seed]) input.addEventListener("input", changed);
    timeline.addEventListener("change", changed);
    byId("dice").addEventListener("click", () => this.#take({ seed: Math.floor(Math.random() * 2 ** 31) }));
    byId("no-seed").addEventListener("click", () => this.#take({ seed: null }));
    byId("all-own").addEventListener("click", () => {
      this.#set({});
      this.#changed();
    });
    byId("compose").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("compose").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("compose").requestSubmit();
    });
  }

  /** The served model: its own settings become what the controls show. */
  setModel({ id, defaults, limits }) {
    this.#defaults = defaults;
    const largest = { frames: limits.frames - ((limits.frames - 1) % 8), steps: limits.steps };
    for (const [name, setting] of Object.entries(this.#numbers)) setting.prefer(defaults[name], largest[name] ?? null);
    this.#numbers.steps.slider.max = String(Math.min(limits.steps, Math.max(60, defaults.steps)));
    this.#numbers.steps.element.hidden = defaults.times !== null; // it has learned these times and no others
    this.size.prefer(defaults);
    this.#negative.placeholder = defaults.negative || "What the video should keep away from";
    this.#showExamples(EXAMPLES[id] ?? EXAMPLES.other);
    this.#restore();
    window.addEventListener("pagehide", () => this.#remember());
    this.#changed();
  }

  /** Put the settings of a request into the controls. */
  load(request) {
    this.#continued = null;
    this.#prompt.value = request.prompt ?? "";
    this.#set(request);
    timeline.resize(this.frames, this.fps);
    timeline.load(request);
    this.#changed();
  }

  /** Everything but the prompt and the pins; what is not given becomes the model's own. */
  #set(request) {
    this.#kept = Object.fromEntries(Object.entries(request).filter(([name, value]) => this.#isKept(name, value)));
    this.#negative.value = request.negative === this.#defaults.negative ? "" : request.negative ?? "";
    this.#seed.value = request.seed ?? "";
    this.size.value = request.size ?? null;
    for (const [name, setting] of Object.entries(this.#numbers)) {
      setting.value = typeof request[name] === "number" ? request[name] : null;
    }
  }

  /** Go on from the end of a finished video. */
  extend(job) {
    this.load({ prompt: job.prompt });
    this.#continued = job;
    this.#changed();
    this.#prompt.focus();
  }

  /** Start a new video from one frame of a finished one. */
  startFrom(job, frame) {
    const { size = null, fps = null } = job.request;
    this.load({ prompt: this.#prompt.value || job.prompt, size: size ?? job.size, fps });
    timeline.addVideo(job, frame < 0 ? { first: frame } : { first: frame, end: frame + 1 });
    this.#prompt.focus();
  }

  focus() {
    this.#prompt.focus();
    this.#prompt.select();
  }

  get frames() {
    return this.#numbers.frames.effective ?? 1;
  }

  get fps() {
    return this.#numbers.fps.effective ?? 24;
  }

  #isKept(name, value) {
    if (value === null || value === undefined) return false;
    if (ELSEWHERE.includes(name)) return typeof value === "object" && name in this.#numbers;
    return JSON.stringify(value) !== JSON.stringify(this.#defaults[name] ?? DEFAULTS[name] ?? null);
  }

  #take({ seed }) {
    this.#seed.value = seed ?? "";
    this.#changed();
  }

  /** What is asked for, as POST /v1/videos takes it; null where the model's own is meant is left out. */
  get #request() {
    const request = { ...this.#kept };
    for (const [name, setting] of Object.entries(this.#numbers)) {
      if (setting.value !== null) request[name] = setting.value;
    }
    if (this.#numbers.steps.element.hidden || "times" in this.#kept) delete request.steps;
    if (this.size.value) request.size = this.size.value;
    if (this.#negative.value.trim()) request.negative = this.#negative.value.trim();
    if (this.#seed.value !== "") request.seed = Number(this.#seed.value);
    const { conditioning } = timeline;
    if (conditioning.length) request.conditioning = conditioning;
    return { prompt: this.#prompt.value.trim(), ...request };
  }

  /** The same for going on: the new part's length, the old one's size and speed. */
  #extension({ size: _, fps: __, frames: ___, conditioning: ____, ...request }) {
    const { fps = this.fps } = this.#continued.request;
    return { ...request, video: { id: this.#continued.id }, seconds: number(this.frames / fps, 6) };
  }

  #changed() {
    const { frames } = this.#numbers;
    frames.note.textContent = `${number(this.frames / this.fps)} s at ${number(this.fps)} frames a second`;
    timeline.resize(this.frames, this.fps);
    byId("pinning").hidden = this.#continued !== null;
    byId("size").hidden = this.#continued !== null;
    byId("continued").hidden = this.#continued === null;
    if (this.#continued) {
      const end = () => this.load({ prompt: this.#prompt.value });
      byId("continued").replaceChildren(
        h("span", {}, "The new part goes on from the end of “", this.#continued.prompt, "”."),
        iconButton("close", "Do not go on from this video", end, { class: "plain" }));
    }
    const kept = Object.keys(this.#kept);
    byId("kept").hidden = !kept.length;
    byId("kept").replaceChildren(`Also as loaded: ${kept.join(", ").replaceAll("_", " ")}. `,
      h("button", { type: "button", class: "link", onclick: () => this.#forgetKept() }, "Forget these"));
    this.#complain("");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#plan(), 300);
  }

  #forgetKept() {
    this.#kept = {};
    this.#changed();
  }

  /** Keep what is in the form for when the page is opened again. */
  #remember() {
    if (!this.#continued) localStorage.setItem(DRAFT, JSON.stringify(this.#request));
  }

  /** Ask what it would take, and remember the draft. */
  async #plan() {
    this.#planning?.abort();
    this.#planning = new AbortController();
    const { signal } = this.#planning;
    await timeline.uploaded();
    this.#remember();
    const request = this.#request;
    if (!request.prompt) delete request.prompt;
    if (this.#continued) Object.assign(request, { frames: this.frames + 24, size: this.#continued.size });
    try {
      if (!signal.aborted) this.#showCost(await postJson("/v1/plan", request, { signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("cost").replaceChildren();
      if (error instanceof ApiError) this.#complain(error.message, error.param);
    }
  }

  #showCost(plan) {
    const { takes_seconds: time, memory_bytes: memory, available_bytes: free, waiting_seconds: wait } = plan;
    const known = time !== null ? `about ${duration(time)}` : "time known after the first video";
    const before = wait ? `after waiting about ${duration(wait)}` : `after ${plan.waiting} others`;
    byId("cost").classList.toggle("problem", !plan.fits);
    byId("cost").replaceChildren(
      h("span", { class: "figure" }, known), h("span", { class: "figure" }, `${bytes(memory)} of memory`),
      plan.waiting > 0 ? h("span", {}, before) : "",
      plan.fits ? "" : h("span", {}, `Only ${bytes(free)} are free: make it smaller or shorter.`));
  }

  #complain(message, param = null) {
    byId("complaint").textContent = message;
    for (const input of byId("compose").querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    if (message && param) byId("compose").querySelector(`#${CSS.escape(param)}`)?.setAttribute("aria-invalid", "true");
  }

  async #submit() {
    if (!this.#prompt.value.trim()) {
      this.#complain("Say first what the video shows, in a sentence or two.", "prompt");
      this.#prompt.focus();
      return;
    }
    byId("generate").disabled = true;
    try {
      await timeline.uploaded();
      const request = this.#request;
      const job = this.#continued
        ? await jobs.order("/v1/videos/extensions", this.#extension(request))
        : await jobs.order("/v1/videos", request);
      this.#complain("");
      this.dispatchEvent(new CustomEvent("ordered", { detail: job }));
    } catch (error) {
      this.#complain(error.message, error.param);
    } finally {
      byId("generate").disabled = false;
    }
  }

  #showExamples(prompts) {
    const use = (prompt) => {
      this.#prompt.value = prompt;
      this.#changed();
      this.#prompt.focus();
    };
    byId("examples").replaceChildren(...prompts.map((prompt) =>
      h("li", {}, h("button", { type: "button", class: "chip", title: prompt, onclick: () => use(prompt) }, prompt))));
  }

  /** What was in the form when the page was left. */
  #restore() {
    try {
      const draft = JSON.parse(localStorage.getItem(DRAFT) ?? "null");
      if (draft && !this.#prompt.value) this.load(draft);
    } catch {
      localStorage.removeItem(DRAFT);
    }
  }
}

export const compose = new Compose();
