/* The controls of one setting each. Left alone, a setting is the model's own: it shows that value and sends nothing. */

import { h, iconButton } from "./dom.js";

/** What there is to set, as numbers; `more` ones are folded away. */
export const NUMBERS = [
  { name: "frames", label: "Length", unit: "frames", min: 1, max: 257, step: 8, hint: "How long the video is." },
  { name: "steps", label: "Steps", min: 1, max: 100, step: 1, hint: "More is slower and usually better." },
  { name: "cfg", label: "Guidance", min: 1, max: 15, step: 0.5,
    hint: "How strongly the prompt is followed. 1 turns it off and halves the time." },
  { name: "fps", label: "Frames a second", min: 1, max: 60, step: 1, more: true, hint: "The model sees real seconds." },
  { name: "stg", label: "Spatio-temporal guidance", min: 0, max: 5, step: 0.25, more: true,
    hint: "How far to move away from a weakened network. 0 is off." },
];

/** A number with a slider beside it; `value` is null while it is the model's own. */
export class NumberSetting {
  #own = null;

  constructor({ name, label, unit = "", min, max, step, hint }, onchange) {
    const note = `${name}-hint`;
    const edges = { min: String(min), max: String(max) };
    this.name = name;
    this.input = h("input", { type: "number", id: name, ...edges, step: "any", "aria-describedby": note });
    this.slider = h("input", { type: "range", ...edges, step: String(step), "aria-label": `${label}, slider` });
    const reset = () => {
      this.value = null;
      onchange();
    };
    this.reset = iconButton("reset", `${label}: the model's own`, reset, { class: "plain" });
    this.input.addEventListener("input", () => {
      this.#show();
      onchange();
    });
    this.slider.addEventListener("input", () => {
      this.input.value = this.slider.value;
      this.#show();
      onchange();
    });
    this.note = h("span", { class: "note", id: note }, hint);
    this.element = h("div", { class: "setting" }, h("label", { for: name }, label), this.slider,
      h("span", { class: "number" }, this.input, unit && h("span", { class: "unit" }, unit)), this.reset, this.note);
    this.#show();
  }

  /** The model's own value, which may be a list, one for each part of the way; and the largest that is possible. */
  prefer(own, max = null) {
    const kept = this.value;
    this.#own = own;
    if (max !== null) for (const each of [this.input, this.slider]) each.max = String(max);
    if (own > Number(this.slider.max)) this.slider.max = String(own);
    this.value = kept;
  }

  get value() {
    return this.input.value === "" || Number(this.input.value) === this.#own ? null : Number(this.input.value);
  }

  set value(value) {
    const shown = typeof this.#own === "number" ? String(this.#own) : "";
    this.input.value = value ?? shown;
    this.input.placeholder = shown || "own";
    this.#show();
  }

  /** The number that counts: the one that is set, else the model's own. */
  get effective() {
    return this.value ?? this.#own;
  }

  #show() {
    this.slider.value = this.input.value || this.#own || this.slider.min;
    this.element.classList.toggle("changed", this.value !== null);
    this.reset.disabled = this.value === null;
  }
}

/** Width and height, with a choice of usual shapes of about the model's own number of pixels. */
export class SizeSetting {
  #own = { width: 0, height: 0 };

  constructor(element, onchange) {
    [this.choice, this.width, this.height] = element.querySelectorAll("select, input");
    this.element = element;
    this.reset = element.querySelector("[data-reset]");
    this.choice.addEventListener("change", () => {
      if (this.choice.value) this.value = this.choice.value;
      onchange();
    });
    for (const input of [this.width, this.height]) {
      input.addEventListener("input", () => {
        this.#show();
        onchange();
      });
    }
    element.querySelector("[data-swap]").addEventListener("click", () => {
      this.value = `${this.height.value}x${this.width.value}`;
      onchange();
    });
    this.reset.addEventListener("click", () => {
      this.value = null;
      onchange();
    });
  }

  prefer({ width, height }) {
    const kept = this.value;
    this.#own = { width, height };
    const area = width * height;
    const shapes = [["Square", 1, area], ["Wide 16:9", 16 / 9, area], ["Tall 9:16", 9 / 16, area],
      ["Small", width / height, area / 4], ["Large", width / height, area * 2.25]];
    const options = new Map([[`${width}x${height}`, `Model's own, ${width} × ${height}`]]); // each size is offered once
    for (const [label, ratio, pixels] of shapes) {
      const [wide, high] = [grid(Math.sqrt(pixels * ratio)), grid(Math.sqrt(pixels / ratio))];
      if (!options.has(`${wide}x${high}`)) options.set(`${wide}x${high}`, `${label}, ${wide} × ${high}`);
    }
    this.choice.replaceChildren(...[...options].map(([value, label]) => h("option", { value }, label)),
      h("option", { value: "" }, "Other"));
    this.value = kept;
  }

  get value() {
    const size = `${Number(this.width.value)}x${Number(this.height.value)}`;
    return size === `${this.#own.width}x${this.#own.height}` || !this.width.value || !this.height.value ? null : size;
  }

  set value(size) {
    const [width, height] = size ? size.split("x") : [this.#own.width, this.#own.height];
    this.width.value = width;
    this.height.value = height;
    this.#show();
  }

  #show() {
    const size = `${this.width.value}x${this.height.value}`;
    this.choice.value = [...this.choice.options].some((option) => option.value === size) ? size : "";
    this.element.classList.toggle("changed", this.value !== null);
    this.reset.disabled = this.value === null;
  }
}

const grid = (pixels) => Math.max(32, Math.round(pixels / 32) * 32);
