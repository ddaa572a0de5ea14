/* Playing one video, or two in step: frames, not seconds, are what the controls count. The first video leads. */

import { byId, number } from "./dom.js";

class Playback {
  #videos = [];
  #fps = 24;
  #scrub = byId("scrub");
  #isLooping = true;

  constructor() {
    byId("play").addEventListener("click", () => this.toggle());
    byId("back").addEventListener("click", () => this.step(-1));
    byId("forward").addEventListener("click", () => this.step(1));
    byId("loop").addEventListener("click", () => this.loop());
    byId("full").addEventListener("click", () => this.fill());
    byId("speed").addEventListener("change", () => this.#each((video) => this.#pace(video)));
    this.#scrub.addEventListener("input", () => {
      this.pause();
      this.seek(Number(this.#scrub.value));
    });
    this.#watch();
  }

  /** Take over these video elements; an empty list leaves nothing to play. */
  use(videos, fps) {
    this.#videos = videos;
    this.#fps = fps;
    byId("controls").hidden = videos.length === 0;
    if (!videos.length) return;
    this.#each((video) => {
      video.loop = this.#isLooping;
      this.#pace(video);
      video.addEventListener("loadedmetadata", () => this.#measure());
      video.addEventListener("click", () => this.toggle());
    });
    for (const kind of ["play", "pause", "ended"]) this.#leader.addEventListener(kind, () => this.#showState());
    this.#leader.addEventListener("seeked", () => this.#align());
    this.#measure();
    this.#showState();
  }

  get isOn() {
    return this.#videos.length > 0;
  }

  get frame() {
    return Math.min(Math.floor((this.#leader?.currentTime ?? 0) * this.#fps + 0.001), this.#last);
  }

  get #leader() {
    return this.#videos[0];
  }

  get #last() {
    return Math.max(Math.round((this.#leader?.duration || 0) * this.#fps) - 1, 0);
  }

  toggle() {
    if (!this.isOn) return;
    if (this.#leader.paused) this.play();
    else this.pause();
  }

  play() {
    this.#each((video) => video.play().catch(() => null)); // refused or interrupted: the button shows it
  }

  pause() {
    this.#each((video) => video.pause());
    this.#align();
  }

  step(frames) {
    if (!this.isOn) return;
    this.pause();
    const count = this.#last + 1;
    this.seek((this.frame + frames + count) % count);
  }

  /** Show a frame: the middle of its time, so that rounding cannot show its neighbour. */
  seek(frame) {
    this.#each((video) => (video.currentTime = Math.min((frame + 0.5) / this.#fps, video.duration || 0)));
    this.#showPlace(frame);
  }

  loop() {
    this.#isLooping = !this.#isLooping;
    this.#each((video) => (video.loop = this.#isLooping));
    byId("loop").setAttribute("aria-pressed", String(this.#isLooping));
  }

  fill() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.isOn) byId("player").requestFullscreen?.();
  }

  #each(act) {
    this.#videos.forEach(act);
  }

  #pace(video) {
    video.playbackRate = Number(byId("speed").value);
  }

  #measure() {
    this.#scrub.max = String(this.#last);
    this.#showPlace(this.frame);
  }

  /** The others to where the leader is, unless they are there. */
  #align() {
    if (!this.isOn) return;
    for (const video of this.#videos.slice(1)) {
      const wanted = Math.min(this.#leader.currentTime, video.duration || 0);
      if (Math.abs(video.currentTime - wanted) > 1.5 / this.#fps) video.currentTime = wanted;
      if (!this.#leader.paused && video.paused) video.play().catch(() => null);
    }
  }

  #watch() {
    if (this.isOn && !this.#leader.paused) {
      this.#showPlace(this.frame);
      this.#align();
    }
    requestAnimationFrame(() => this.#watch());
  }

  #showPlace(frame) {
    if (Number(this.#scrub.value) !== frame) this.#scrub.value = String(frame);
    const words = `Frame ${frame + 1} of ${this.#last + 1}`;
    this.#scrub.setAttribute("aria-valuetext", words);
    byId("place").textContent = `${frame + 1} / ${this.#last + 1} · ${number(frame / this.#fps)} s`;
  }

  #showState() {
    if (!this.isOn) return; // the last word of a video that is not shown any more
    const isPaused = this.#leader.paused;
    byId("play").querySelector("use").setAttribute("href", `/studio/icons.svg#${isPaused ? "play" : "pause"}`);
    byId("play").setAttribute("aria-label", isPaused ? "Play" : "Pause");
    byId("play").title = isPaused ? "Play (space)" : "Pause (space)";
  }
}

export const playback = new Playback();
