/* Small helpers around the page's elements. Text is always set as text, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

/** The element of this id, which the page must have. */
export const byId = (id) => document.getElementById(id);

/** A new element: `h("button", { class: "plain", onclick: run, "aria-label": "Run" }, icon("play"), " Run")`. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A picture of icons.svg; it says nothing to screen readers, so what it stands in must have a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/studio/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon; its label is read out and shown as a tooltip, its text, if any, is shown. */
export function iconButton(name, label, onclick, { text = "", ...attributes } = {}) {
  const said = { type: "button", title: label, "aria-label": label, onclick };
  return h("button", { ...said, ...attributes }, icon(name), text && h("span", {}, text));
}

/** Make these the children of an element without touching those that are there already: they may have the focus. */
export function agree(parent, children) {
  for (const old of [...parent.children]) if (!children.includes(old)) old.remove();
  children.forEach((child, index) => {
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
}

/** Say something in passing, to eyes and to screen readers; problems stay until they are closed. */
export function say(message, { isProblem = false } = {}) {
  const toast = h("div", { class: isProblem ? "toast problem" : "toast" }, h("span", {}, message));
  const close = () => toast.remove();
  toast.append(iconButton("close", "Close this message", close, { class: "plain" }));
  byId(isProblem ? "problems" : "news").append(toast);
  if (!isProblem) setTimeout(close, 5000);
}

/** Run something asynchronous; what goes wrong is said in words, unless the page shows it already. */
export async function attempt(run) {
  try {
    return await run();
  } catch (error) {
    if (error.name !== "AbortError" && !error.isShown) say(error.message, { isProblem: true });
    return undefined;
  }
}

/** "0.9 s", "12 s", "3 min 20 s", "2 h 5 min". */
export function duration(seconds) {
  if (seconds < 10) return `${Math.max(seconds, 0.1).toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** "640 MB", "12 GB". */
export function bytes(count) {
  const megabytes = count / 1e6;
  if (megabytes < 1000) return `${Math.round(megabytes)} MB`;
  return `${(megabytes / 1000).toFixed(megabytes < 10000 ? 1 : 0)} GB`;
}

/** A number without superfluous zeros: 2.04, 3, 0.5. */
export const number = (value, digits = 2) => String(Number(value.toFixed(digits)));
