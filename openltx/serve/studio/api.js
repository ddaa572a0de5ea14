/* The server's API: requests with the key, errors in words, events as they come.

Everything that has to carry the key goes through `fetch`: videos and pictures too, which elements then show from
memory. `connection` says "lost" when the server stops answering, and "found" when it does again. */

const KEY = "openltx.key";

/** An answer of 400 and above; `message` is the server's own, and fit to be shown. */
export class ApiError extends Error {
  constructor(status, message, code = null, param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

/** The server does not answer at all. */
export class OfflineError extends Error {
  constructor() {
    super("The server does not answer. It may be starting again; this page keeps trying.");
    this.isShown = true; // as the banner
  }
}

export const connection = new EventTarget();
let isLost = false;
let askForKey = async () => null;
let asking = null;

/** How to get a key when the server wants one: an async function that gives it. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

const key = () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";

/** Keep a key for this tab, or on this device. */
export function keepKey(secret, onDevice) {
  for (const place of [sessionStorage, localStorage]) place.removeItem(KEY);
  (onDevice ? localStorage : sessionStorage).setItem(KEY, secret);
}

/** The answer to one request. `json` or `form` is its body; throws ApiError and OfflineError. */
export async function call(method, path, { json, form, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (json !== undefined) sent["Content-Type"] = "application/json";
  const used = key();
  if (used) sent.Authorization = `Bearer ${used}`;
  const body = json === undefined ? form : JSON.stringify(json);
  const response = await reach(path, { method, headers: sent, body, signal });
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (problem.code !== "invalid_api_key") throw problem;
  if (key() === used) {
    asking ??= askForKey(used !== "").finally(() => (asking = null));
    const given = await asking;
    if (!given) throw problem;
  }
  return call(method, path, { json, form, headers, signal });
}

/** The JSON of an answer. */
export const getJson = async (path, options) => (await call("GET", path, options)).json();
export const postJson = async (path, json, options) => (await call("POST", path, { json, ...options })).json();

/** The address of a file in memory; `URL.revokeObjectURL` lets go of it. */
export async function inMemory(path, options) {
  return URL.createObjectURL(await (await call("GET", path, options)).blob());
}

/** Upload a picture or clip; gives the server's file object. */
export async function upload(file, options) {
  const form = new FormData();
  form.append("purpose", "vision");
  form.append("file", file, file.name || "pasted");
  return (await call("POST", "/v1/files", { form, ...options })).json();
}

/** A word that makes repeating a request safe. (randomUUID is missing where a page is not served over TLS.) */
export function token() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("-");
}

/** Server-sent events behind the event `after`: {id, kind, data}, until the server ends the stream. */
export async function* events(path, after, signal) {
  const headers = after ? { "Last-Event-ID": after } : {};
  const response = await call("GET", path, { headers, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (signal?.aborted) throw error;
      return { done: true }; // the connection broke: to the caller an end like any other
    });
    if (done) return;
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const fields = Object.fromEntries(message.split("\n").map(field));
      if (fields.event) yield { id: fields.id, kind: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

function field(line) {
  const colon = line.indexOf(":");
  return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    watch();
    throw new OfflineError();
  }
}

async function problemOf(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.message, error.code, error.param);
  } catch {
    return new ApiError(response.status, `The server answered ${response.status} and nothing else.`);
  }
}

/** Say that the server is lost, and ask for it until it is found. */
async function watch() {
  if (isLost) return;
  isLost = true;
  connection.dispatchEvent(new Event("lost"));
  for (;;) {
    await new Promise((wake) => setTimeout(wake, 700));
    const answer = await fetch("/healthz", { cache: "no-store" }).catch(() => null);
    if (answer?.ok) break;
  }
  isLost = false;
  connection.dispatchEvent(new Event("found"));
}

/** Wait while the server is lost. */
export async function untilFound() {
  if (isLost) await new Promise((wake) => connection.addEventListener("found", wake, { once: true }));
}
