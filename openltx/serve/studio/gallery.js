/* The gallery: everything that was made, with search by words of the prompt. */

import { inMemory } from "./api.js";
import { agree, attempt, byId, h, icon, iconButton } from "./dom.js";
import { isUnfinished, jobs } from "./jobs.js";
import { stage } from "./stage.js";
import { OWN_VIDEO } from "./timeline.js";

const STATES = { failed: "failed", cancelled: "cancelled", expired: "expired" };

class Gallery {
  #cards = new Map();
  #search = byId("search");
  #seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) this.#load(entry.target);
  }, { rootMargin: "200px" });

  constructor() {
    jobs.addEventListener("change", ({ detail }) => (!detail || !isUnfinished(detail)) && this.#draw());
    jobs.addEventListener("gone", ({ detail: id }) => this.#drop(id));
    stage.addEventListener("change", () => this.#mark());
    this.#search.addEventListener("input", () => attempt(() => this.#find()));
    byId("older").addEventListener("click", () => attempt(() => jobs.more()));
  }

  #draw() {
    const finished = jobs.all().filter((job) => !isUnfinished(job));
    agree(byId("videos"), finished.map((job) => this.#card(job)));
    byId("older").hidden = !jobs.hasMore;
    this.#filter();
    this.#mark();
  }

  /** The card of a job, made anew when its state has changed. */
  #card(job) {
    const known = this.#cards.get(job.id);
    if (known?.dataset.status === job.status) return known;
    known?.remove();
    const isThere = job.status === "completed";
    const show = () => {
      stage.show(job.id);
      byId("player").scrollIntoView({ block: "nearest", behavior: "smooth" });
    };
    const beside = iconButton("compare", `Compare with ${job.prompt}`, () => this.#compare(job.id), { class: "beside" });
    const card = h("li", { class: "card", "data-id": job.id, "data-status": job.status },
      h("button", { type: "button", class: "open", onclick: show, draggable: isThere ? "true" : "false" },
        h("span", { class: "still" }, isThere ? "" : icon("warn")),
        h("span", { class: "name" }, job.prompt), isThere ? "" : h("span", { class: "badge" }, STATES[job.status])),
      isThere && beside);
    card.addEventListener("dragstart", (event) => event.dataTransfer.setData(OWN_VIDEO, job.id));
    this.#cards.set(job.id, card);
    if (isThere) this.#seen.observe(card);
    return card;
  }

  #compare(id) {
    if (!stage.id || stage.id === id) stage.show(id);
    else stage.compare(stage.other === id ? null : id);
  }

  async #load(card) {
    this.#seen.unobserve(card);
    const image = await inMemory(`/v1/videos/${card.dataset.id}/content?variant=thumbnail`).catch(() => null);
    if (image) card.querySelector(".still").replaceChildren(h("img", { src: image, alt: "" }));
  }

  #drop(id) {
    const card = this.#cards.get(id);
    const image = card?.querySelector("img");
    if (image) URL.revokeObjectURL(image.src);
    card?.remove();
    this.#cards.delete(id);
    this.#filter();
  }

  /** Search what is there first, then what is older. */
  async #find() {
    this.#filter();
    const sought = this.#search.value;
    while (sought && jobs.hasMore && sought === this.#search.value) await jobs.more();
  }

  #filter() {
    const words = this.#search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [id, card] of this.#cards) {
      const job = jobs.get(id);
      const text = `${job?.prompt} ${job?.size} ${job?.request.seed} ${job?.status}`.toLowerCase();
      card.hidden = !words.every((word) => text.includes(word));
      count += !card.hidden;
    }
    byId("none").hidden = count > 0;
    const isSearch = words.length > 0;
    byId("none").textContent = isSearch ? "Nothing here has these words." : "Nothing yet. What you make is kept here.";
  }

  #mark() {
    for (const [id, card] of this.#cards) {
      card.classList.toggle("shown", id === stage.id);
      card.querySelector(".open").setAttribute("aria-current", String(id === stage.id));
      card.querySelector(".beside")?.setAttribute("aria-pressed", String(id === stage.other));
    }
  }
}

export const gallery = new Gallery();
