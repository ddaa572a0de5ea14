/* The jobs of this visitor: listed, followed while they run, ordered, cancelled, deleted.

`jobs` says "change" with the job in `detail` (null if many have changed), "preview" with {id, image}, "end" with a job
that has just ended, and "gone" with an id. A browser opens six connections to one server, so only the jobs that run are
followed by their events; those that wait are looked up now and then. */

import { ApiError, OfflineError, call, events, getJson, postJson, token, untilFound } from "./api.js";
import { attempt } from "./dom.js";

const PAGE = 40;
const MOST_FOLLOWED = 3;
const LOOK_MILLISECONDS = 1500;

export const isUnfinished = (job) => job.status === "queued" || job.status === "in_progress";
const pause = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

class Jobs extends EventTarget {
  #jobs = new Map();
  #previews = new Map();
  #followed = new Map(); // id -> AbortController
  #last = null; // where the next page begins
  #isLooking = false;
  #newest = 0; // ranks, for the order of jobs of one second
  #oldest = 0;
  hasMore = false;

  /** All that are known, the latest first. */
  all() {
    return [...this.#jobs.values()].sort((a, b) => b.created_at - a.created_at || b.rank - a.rank);
  }

  get(id) {
    return this.#jobs.get(id);
  }

  /** The latest preview of a job, as a data URL. */
  preview(id) {
    return this.#previews.get(id);
  }

  /** How many of this visitor's jobs wait before this one, or run. */
  ahead(job) {
    return this.all().filter((other) => isUnfinished(other) && this.#isBefore(other, job)).length;
  }

  #isBefore(other, job) {
    return other.created_at < job.created_at || (other.created_at === job.created_at && other.rank < job.rank);
  }

  /** Read the latest page again. */
  async refresh() {
    const page = await getJson(`/v1/videos?limit=${PAGE}`);
    if (!this.#jobs.size) {
      this.hasMore = page.has_more;
      this.#last = page.last_id;
    }
    const listed = new Set(page.data.map((job) => job.id));
    for (const job of this.all()) if (isUnfinished(job) && !listed.has(job.id)) this.#look(job.id);
    for (const job of page.data.reverse()) this.#learn(job);
    this.#say("change", null);
    this.#lookAfter();
  }

  /** Read the next page of older jobs. */
  async more() {
    if (!this.hasMore) return;
    const page = await getJson(`/v1/videos?limit=100&after=${this.#last}`);
    this.hasMore = page.has_more;
    this.#last = page.last_id ?? this.#last;
    for (const job of page.data) this.#learn(job, (this.#oldest -= 1));
    this.#say("change", null);
  }

  /** The job of an identifier that may not be listed yet; undefined if there is none. */
  async find(id) {
    if (!this.#jobs.has(id)) await this.#look(id);
    return this.get(id);
  }

  /** Order a video at one of the server's addresses. A break of the connection does not order it twice. */
  async order(path, request) {
    const headers = { "Idempotency-Key": token() };
    for (let tries = 1; ; tries += 1) {
      try {
        return this.add(await postJson(path, request, { headers }));
      } catch (error) {
        if (!(error instanceof OfflineError) || tries === 3) throw error;
        await untilFound();
      }
    }
  }

  /** Take in a job that the server has just accepted. */
  add(job) {
    this.#learn(job);
    this.#say("change", job);
    this.#lookAfter();
    return this.get(job.id);
  }

  async cancel(id) {
    const job = await (await call("POST", `/v1/videos/${id}/cancel`)).json();
    this.#update(job);
  }

  async remove(id) {
    await call("DELETE", `/v1/videos/${id}`);
    this.#forget(id);
  }

  #say(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** Keep a job as the server tells it; `rank` keeps the order of those of one second. */
  #learn(job, rank = (this.#newest += 1)) {
    const known = this.#jobs.get(job.id);
    this.#jobs.set(job.id, { ...job, rank: known?.rank ?? rank });
    if (isUnfinished(job)) return;
    this.#previews.delete(job.id);
    if (known && isUnfinished(known)) this.#say("end", this.get(job.id));
  }

  #update(job) {
    this.#learn(job);
    this.#say("change", this.get(job.id));
  }

  #forget(id) {
    this.#followed.get(id)?.abort();
    this.#jobs.delete(id);
    this.#previews.delete(id);
    this.#say("gone", id);
  }

  /** As long as there are unfinished jobs: follow those that run, look after the others. */
  async #lookAfter() {
    this.#followRunning();
    if (this.#isLooking) return;
    this.#isLooking = true;
    while (this.all().some(isUnfinished)) {
      await pause(LOOK_MILLISECONDS);
      for (const job of this.all().filter((one) => isUnfinished(one) && !this.#followed.has(one.id)).slice(-5)) {
        await this.#look(job.id);
      }
      this.#followRunning();
    }
    this.#isLooking = false;
  }

  #followRunning() {
    const waiting = this.all().filter((job) => isUnfinished(job) && !this.#followed.has(job.id)).reverse();
    waiting.sort((a, b) => (b.status === "in_progress") - (a.status === "in_progress"));
    for (const job of waiting.slice(0, MOST_FOLLOWED - this.#followed.size)) this.#follow(job.id);
  }

  async #look(id) {
    try {
      this.#update(await getJson(`/v1/videos/${id}`));
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.#forget(id);
      await untilFound();
    }
  }

  /** Follow a job's events to its end, over breaks of the connection and starts of the server. */
  async #follow(id) {
    const abort = new AbortController();
    this.#followed.set(id, abort);
    let after = null;
    while (!abort.signal.aborted && this.#jobs.has(id) && isUnfinished(this.get(id))) {
      try {
        for await (const event of events(`/v1/videos/${id}/events`, after, abort.signal)) {
          after = event.id ?? after;
          this.#hear(id, event);
        }
        await pause(300);
        if (this.#jobs.has(id) && isUnfinished(this.get(id))) await this.#look(id);
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) this.#forget(id);
        else if (error instanceof ApiError) await pause(3000);
        await untilFound();
      }
    }
    this.#followed.delete(id);
    this.#followRunning();
  }

  #hear(id, { kind, data }) {
    const job = this.get(id);
    if (!job) return;
    if (kind === "done") this.#update(data);
    else if (kind === "deleted") this.#forget(id);
    else if (kind === "preview" && data.image) {
      this.#previews.set(id, data.image);
      this.#say("preview", { id, image: data.image });
    } else if (kind === "progress") this.#update({ ...job, ...data, status: "in_progress" });
    else if (kind === "status" && (data.status === "queued" || data.status === "in_progress")) {
      this.#update({ ...job, ...data, step: 0, progress: 0, stage: data.status === "queued" ? "queued" : "prepare" });
    }
  }
}

export const jobs = new Jobs();

/** Cancel, delete and remix with their words when something goes wrong. */
export const cancel = (id) => attempt(() => jobs.cancel(id));
export const remove = (id) => attempt(() => jobs.remove(id));
export const remix = (id) => attempt(() => jobs.order(`/v1/videos/${id}/remix`, {}));
