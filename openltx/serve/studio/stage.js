/* The stage: one video with its settings and what can be done with it, a second one beside it to compare, or a job that
still runs, with its preview. */

import { call, inMemory } from "./api.js";
import { attempt, byId, duration, h, icon, iconButton, number } from "./dom.js";
import { cancel, isUnfinished, jobs, remix, remove } from "./jobs.js";
import { playback } from "./playback.js";
import { describe } from "./queue.js";

const ENDS = {
  failed: "This video could not be made.",
  cancelled: "This video was cancelled.",
  expired: "This video has expired, and its file is gone.",
};
const FACTS = [["size", "Size"], ["frames", "Frames"], ["fps", "Frames a second"], ["steps", "Steps"],
  ["cfg", "Guidance"], ["stg", "Spatio-temporal guidance"], ["seed", "Seed"], ["negative", "Keeps away from"]];

class Stage extends EventTarget {
  #id = null;
  #other = null; // the id of the video beside it
  #drawn = ""; // what is on the screen
  #addresses = []; // of videos in memory

  constructor() {
    super();
    jobs.addEventListener("change", ({ detail }) => (!detail || this.#shows(detail.id)) && this.#draw());
    jobs.addEventListener("preview", ({ detail }) => detail.id === this.#id && this.#preview(detail.image));
    jobs.addEventListener("gone", ({ detail: id }) => {
      if (id === this.#other) this.compare(null);
      else if (id === this.#id) this.show(null);
    });
    this.#draw();
  }

  get id() {
    return this.#id;
  }

  get other() {
    return this.#other;
  }

  /** Show a job by its id; null shows none. */
  show(id) {
    if (id !== this.#id) this.#other = null;
    this.#id = id;
    history.replaceState(null, "", id ? `#${id}` : location.pathname);
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  /** Put a second finished video beside the first, or take it away. */
  compare(id) {
    this.#other = id === this.#id ? null : id;
    this.#draw();
    this.dispatchEvent(new Event("change"));
  }

  #shows(id) {
    return id === this.#id || id === this.#other;
  }

  #draw() {
    const job = jobs.get(this.#id);
    const other = jobs.get(this.#other);
    const state = [job?.id, job && (isUnfinished(job) ? "unfinished" : job.status), other?.id].join();
    if (state !== this.#drawn) {
      this.#drawn = state;
      this.#clear();
      byId("player").dataset.state = !job ? "empty" : isUnfinished(job) ? "unfinished" : job.status;
      if (!job) this.#screen(this.#empty());
      else if (isUnfinished(job)) this.#screen(this.#unfinished(job));
      else if (job.status === "completed") attempt(() => this.#videos(job, other));
      else this.#screen(this.#ended(job));
      byId("about").replaceChildren(...(job ? this.#about(job, other) : []));
    }
    if (job && isUnfinished(job)) {
      byId("screen").querySelector("progress").value = job.progress;
      byId("screen").querySelector(".state").textContent = describe(job);
    }
  }

  #clear() {
    playback.use([], 1);
    for (const address of this.#addresses.splice(0)) URL.revokeObjectURL(address);
  }

  #screen(...elements) {
    byId("screen").replaceChildren(...elements);
  }

  #empty() {
    return h("div", { class: "blank" }, icon("film"), h("p", {}, "Your video appears here."),
      h("p", { class: "note" },
        "Drop a picture to start from it, or a video made by openltx to get its settings back."));
  }

  #unfinished(job) {
    const image = jobs.preview(job.id);
    return h("div", { class: "forming" },
      h("div", { class: "preview" }, image && h("img", { src: image, alt: "Preview of the video so far" })),
      h("p", { class: "state" }),
      h("progress", { max: 100, value: job.progress, "aria-label": "Progress of this video" }),
      iconButton("cancel", "Cancel this video", () => cancel(job.id), { text: "Cancel" }));
  }

  #preview(image) {
    const frame = byId("screen").querySelector(".preview");
    if (!frame) return;
    if (!frame.firstChild) frame.append(h("img", { alt: "Preview of the video so far" }));
    frame.firstChild.src = image;
  }

  #ended(job) {
    return h("div", { class: "blank" }, icon("warn"), h("p", {}, ENDS[job.status]),
      h("p", { class: "note" }, job.error?.message ?? ""));
  }

  async #videos(...asked) {
    const shown = asked.filter(Boolean);
    const drawn = this.#drawn;
    const videos = [];
    for (const job of shown) {
      const address = await inMemory(`/v1/videos/${job.id}/content`);
      if (drawn !== this.#drawn) return URL.revokeObjectURL(address); // something else is shown by now
      this.#addresses.push(address);
      const quiet = { muted: true, playsInline: true, preload: "auto" };
      videos.push(h("video", { src: address, "aria-label": job.prompt, ...quiet }));
    }
    this.#screen(...videos.map((video, index) => h("figure", {}, video,
      shown.length > 1 && h("figcaption", {}, `${"AB"[index]}: seed ${shown[index].request.seed}`))));
    playback.use(videos, Number(shown[0].request.fps) || 24);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) playback.play();
    return undefined;
  }

  #about(job, other) {
    const isThere = job.status === "completed";
    const say = (kind, detail) => this.dispatchEvent(new CustomEvent(kind, { detail }));
    const button = (name, text, label, run) => iconButton(name, label, run, { text });
    const start = (frame) => say("start", { job, frame });
    const actions = isUnfinished(job) ? [] : [
      button("remix", isThere ? "Remix" : "Try again", "The same settings with a new seed", () => this.#remix(job)),
      button("edit", "Edit settings", "Put these settings into the form", () => say("edit", job)),
      isThere && button("extend", "Extend", "Go on from the end of this video", () => say("extend", job)),
      isThere && button("last", "Use last frame", "Start a new video from the last frame", () => start(-1)),
      isThere && button("frame", "Use this frame", "Start a new video from the frame that is shown",
        () => start(playback.frame)),
      isThere && button("download", "Download", "Download the video, with its settings in it",
        () => attempt(() => download(job))),
      other && button("close", "End comparison", "Show only the first video", () => this.compare(null)),
      button("trash", "Delete", "Delete this video for good",
        () => confirm("Delete this video for good?") && remove(job.id)),
    ];
    return [h("p", { class: "prompt" }, job.prompt),
      h("div", { class: "actions", role: "group", "aria-label": "What to do with this video" }, actions),
      other ? differences(job, other) : facts(job)];
  }

  async #remix(job) {
    const made = await remix(job.id);
    if (made) this.dispatchEvent(new CustomEvent("ordered", { detail: made }));
  }
}

/** A job's settings in words. */
function facts(job) {
  const said = FACTS.filter(([name]) => name !== "stg" || job.request[name]); // usually off
  const rows = said.map(([name, label]) => [label, word(job.request[name])]).filter(([, value]) => value);
  const { queued: _, ...stages } = job.stages ?? {};
  const taken = Object.values(stages).reduce((sum, seconds) => sum + seconds, 0);
  if (taken) rows.push(["Made in", duration(taken)]);
  return h("dl", {}, rows.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

/** What two videos do not share. */
function differences(a, b) {
  const rows = [["prompt", "Prompt"], ...FACTS].map(([name, label]) => [label, ...[a, b].map((job) => word(job.request[name]))]);
  const differing = rows.filter(([, left, right]) => left !== right);
  const heads = ["Differs in", "A", "B"].map((head) => h("th", { scope: "col" }, head));
  return h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, differing.map(([label, left, right]) =>
    h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, left), h("td", {}, right)))));
}

function word(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "number" ? number(value) : Array.isArray(value) ? value.map(word).join(", ") : String(value);
}

/** Save a video under a name that says what it is. */
async function download(job) {
  const words = job.prompt.toLowerCase().match(/[a-z0-9]+/g) ?? ["video"];
  const address = URL.createObjectURL(await (await call("GET", `/v1/videos/${job.id}/content`)).blob());
  h("a", { href: address, download: `${words.slice(0, 8).join("-")}-${job.request.seed}.mp4` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export const stage = new Stage();
