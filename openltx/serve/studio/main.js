/* The studio: what goes between its parts, what is dropped and pasted, keys of the keyboard, and the server's state. */

import { ApiError, OfflineError, call, connection, getJson, keepKey, onKeyWanted } from "./api.js";
import { compose } from "./compose.js";
import { attempt, byId, icon, say } from "./dom.js";
import "./gallery.js";
import { isUnfinished, jobs } from "./jobs.js";
import { playback } from "./playback.js";
import { queue } from "./queue.js";
import { stage } from "./stage.js";
import { timeline } from "./timeline.js";

const THEMES = [["", "auto", "as the system"], ["light", "sun", "light"], ["dark", "moon", "dark"]];
const isPhone = () => matchMedia("(max-width: 60rem)").matches;

/* Between the parts */

function ordered({ detail: job }) {
  stage.show(job.id);
  if (isPhone()) byId("player").scrollIntoView({ behavior: "smooth" });
}

compose.addEventListener("ordered", ordered);
stage.addEventListener("ordered", ordered);
stage.addEventListener("edit", ({ detail: job }) => compose.load(job.request));
stage.addEventListener("extend", ({ detail: job }) => compose.extend(job));
stage.addEventListener("start", ({ detail: { job, frame } }) => compose.startFrom(job, frame));
queue.addEventListener("show", ({ detail: id }) => stage.show(id));
timeline.addEventListener("video", ({ detail: { id, frame } }) => timeline.addVideo(jobs.get(id), { frame }));
jobs.addEventListener("end", ({ detail: job }) => {
  const reason = job.error?.message ?? "";
  if (job.status === "completed") say(`Finished: ${job.prompt}`);
  else if (job.status === "failed") say(`Could not be made: ${job.prompt}. ${reason}`, { isProblem: true });
});

/* Dropped and pasted files */

const isFiles = (event) => event.dataTransfer?.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!isFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!isFiles(event) || event.defaultPrevented) return;
  event.preventDefault();
  for (const file of event.dataTransfer.files) take(file);
});
document.addEventListener("drop", () => document.body.classList.remove("dropping"), true);
document.addEventListener("paste", (event) => {
  for (const file of event.clipboardData.files) take(file);
});

/** A file that was given to the page: settings if there are some in it, else something to pin. */
async function take(file) {
  const found = await attempt(() => settingsIn(file));
  if (found === undefined) return;
  if (found === null) return timeline.add(file);
  compose.load(found.request);
  const missing = found.missing.length ? ` What it was given is not on this server: ${found.missing.join(", ")}.` : "";
  say(`The settings of ${file.name} are in the form.${missing}`);
}

/** The settings in a file made by openltx; null if there are none. */
async function settingsIn(file) {
  const form = new FormData();
  form.append("file", file, file.name || "pasted");
  try {
    return await (await call("POST", "/v1/videos/settings", { form })).json();
  } catch (error) {
    if (error instanceof ApiError && error.code === "no_settings") return null;
    throw error;
  }
}

/* Keys of the keyboard */

const KEYS = {
  " ": () => playback.toggle(),
  k: () => playback.toggle(),
  ",": () => playback.step(-1),
  ".": () => playback.step(1),
  l: () => playback.loop(),
  f: () => playback.fill(),
  n: () => compose.focus(),
  "/": () => byId("search").focus(),
  "?": () => byId("help").showModal(),
};
const singleKeys = byId("single-keys");
singleKeys.checked = localStorage.getItem("openltx.keys") !== "off";
singleKeys.addEventListener("change", () => localStorage.setItem("openltx.keys", singleKeys.checked ? "on" : "off"));
document.addEventListener("keydown", (event) => {
  const isTaken = event.target.closest("input, textarea, select, dialog, [role=slider]");
  const isPressing = event.key === " " && event.target.closest("button, summary, a");
  if (!singleKeys.checked || isTaken || isPressing || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

/* Light and dark, help, key */

function showTheme() {
  const [, name, words] = THEMES.find(([theme]) => theme === (document.documentElement.dataset.theme ?? ""));
  byId("theme").replaceChildren(icon(name));
  byId("theme").setAttribute("aria-label", `Colours: ${words}. Change`);
  byId("theme").title = `Colours: ${words}`;
}

byId("theme").addEventListener("click", () => {
  const now = THEMES.findIndex(([theme]) => theme === (document.documentElement.dataset.theme ?? ""));
  const [next] = THEMES[(now + 1) % THEMES.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("openltx.theme", next);
  showTheme();
});
byId("show-help").addEventListener("click", () => byId("help").showModal());
byId("change-key").addEventListener("click", async () => (await askForKey(false)) && location.reload());

/** Ask for a key; gives it, or null if the visitor has none. */
function askForKey(wasRefused) {
  const dialog = byId("key-dialog");
  byId("key-refused").hidden = !wasRefused;
  byId("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      const secret = dialog.returnValue === "use" ? byId("key").value.trim() : "";
      if (secret) keepKey(secret, byId("keep-key").checked);
      byId("change-key").hidden = false;
      done(secret || null);
    }, { once: true });
  });
}

onKeyWanted(askForKey);

/* The server's state */

function banner(words) {
  byId("banner").hidden = !words;
  byId("banner").textContent = words;
}

connection.addEventListener("lost", () => banner(new OfflineError().message));
connection.addEventListener("found", () => {
  banner("");
  start();
});

/** The served model; it may still be loading. */
async function model() {
  for (;;) {
    const { data } = await getJson("/v1/models");
    if (data.length) return data[0];
    banner("The model is being loaded. You can write your prompt meanwhile.");
    await new Promise((wake) => setTimeout(wake, 700));
  }
}

let hasStarted = false;

async function start() {
  const found = await attempt(async () => {
    await jobs.refresh();
    return model();
  });
  if (!found) return;
  banner("");
  byId("model").textContent = found.id;
  if (hasStarted) return;
  hasStarted = true;
  compose.setModel(found);
  const asked = /^#video_[0-9a-f]+$/.test(location.hash) ? await jobs.find(location.hash.slice(1)) : null;
  const running = jobs.all().find(isUnfinished);
  const latest = jobs.all().find((job) => job.status === "completed");
  stage.show(asked?.id ?? running?.id ?? latest?.id ?? null);
}

showTheme();
start();
