/* The queue: what waits and what runs, with progress, time left and a way to stop it. */

import { byId, duration, h, iconButton } from "./dom.js";
import { cancel, isUnfinished, jobs } from "./jobs.js";

const STAGES = { prepare: "Reading the prompt", sample: "Forming", decode: "Decoding", write: "Writing" };
const paces = new Map(); // id -> the first step that was heard of, and when, by the server's clock

/** How far a job is, in words. */
export function describe(job) {
  if (job.status === "queued") {
    const ahead = jobs.ahead(job);
    return ahead ? `Waiting, ${ahead} of yours before it` : "Waiting for its turn";
  }
  if (job.stage !== "sample" || !job.steps) return `${STAGES[job.stage] ?? "Working"} …`;
  const left = secondsLeft(job);
  return `Step ${job.step} of ${job.steps}${left === null ? "" : `, ${duration(left)} left`}`;
}

function secondsLeft(job) {
  const pace = paces.get(job.id);
  if (!job.at) return null; // heard of by other ways than its events
  if (!pace || pace.step > job.step || pace.attempt !== job.attempt) {
    paces.set(job.id, { step: job.step, at: job.at, attempt: job.attempt });
    return null;
  }
  if (job.step - pace.step < 2) return null;
  return ((job.at - pace.at) / (job.step - pace.step)) * (job.steps - job.step);
}

/** The list of unfinished jobs; says "show" with an id when one is chosen. */
class Queue extends EventTarget {
  #rows = new Map();

  constructor() {
    super();
    jobs.addEventListener("change", ({ detail }) => {
      for (const job of detail ? [detail] : jobs.all().reverse()) this.#refresh(job);
    });
    jobs.addEventListener("gone", ({ detail: id }) => this.#drop(id));
    jobs.addEventListener("preview", ({ detail }) => this.#picture(detail));
  }

  #refresh(job) {
    if (!isUnfinished(job)) return this.#drop(job.id);
    if (!this.#rows.has(job.id)) this.#add(job);
    const row = this.#rows.get(job.id);
    row.querySelector("progress").value = job.progress;
    row.querySelector(".state").textContent = describe(job);
    for (const other of this.#rows.keys()) if (other !== job.id) this.#restate(other);
  }

  #restate(id) {
    const job = jobs.get(id);
    if (job?.status === "queued") this.#rows.get(id).querySelector(".state").textContent = describe(job);
  }

  #add(job) {
    const show = () => this.dispatchEvent(new CustomEvent("show", { detail: job.id }));
    const row = h("li", { "data-id": job.id },
      h("button", { type: "button", class: "job", onclick: show },
        h("span", { class: "still" }), h("span", { class: "words" },
          h("span", { class: "name" }, job.prompt), h("span", { class: "state" }))),
      h("progress", { max: 100, value: job.progress, "aria-label": `Progress of ${job.prompt}` }),
      iconButton("cancel", `Cancel ${job.prompt}`, () => cancel(job.id), { class: "plain" }));
    this.#rows.set(job.id, row);
    byId("jobs").append(row);
    this.#count();
  }

  #picture({ id, image }) {
    const still = this.#rows.get(id)?.querySelector(".still");
    if (!still) return;
    if (!still.firstChild) still.append(h("img", { alt: "" }));
    still.firstChild.src = image;
  }

  #drop(id) {
    this.#rows.get(id)?.remove();
    this.#rows.delete(id);
    paces.delete(id);
    this.#count();
  }

  #count() {
    byId("queue").hidden = this.#rows.size === 0;
  }
}

export const queue = new Queue();
