// Small helpers over the DOM: building nodes, words for numbers, theme, shortcuts, dialogs.
// Text only ever enters the page as a text node; nothing here (or elsewhere) parses HTML.

/** Build an element. `on*` values are listeners, `class`/`text`/`data` are what they say, true/false toggle. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(node, ...children) {
  node.textContent = "";
  append(node, children);
  return node;
}

/** Set text only when it differs, so that a redraw does not disturb selections and screen readers. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** 72_345 ms -> "1:12.3"; whole seconds with digits 0. */
export function clock(ms, digits = 1) {
  const sign = ms < 0 ? "−" : "";
  const unit = 10 ** digits;
  const total = Math.floor((Math.abs(ms) / 1000) * unit + 1e-6);
  const minutes = Math.floor(total / (60 * unit));
  const seconds = (total - minutes * 60 * unit) / unit;
  const text = seconds.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return `${sign}${minutes}:${text}`;
}

/** A duration for people: 340 ms, 1.8 s, 4 min 05 s. */
export function span(ms) {
  if (!Number.isFinite(ms)) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${String(Math.floor(ms / 1000) % 60).padStart(2, "0")} s`;
  return `${Math.floor(ms / 3_600_000)} h ${String(Math.floor(ms / 60_000) % 60).padStart(2, "0")} min`;
}

export function ago(ms, now = Date.now()) {
  const passed = now - ms;
  if (!Number.isFinite(passed)) return "";
  if (passed < 5_000) return "now";
  if (passed < 60_000) return `${Math.floor(passed / 1000)} s ago`;
  if (passed < 3_600_000) return `${Math.floor(passed / 60_000)} min ago`;
  if (passed < 86_400_000) return `${Math.floor(passed / 3_600_000)} h ago`;
  return new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** Say something to screen readers once; partial words are never announced, only what is final. */
export function announce(text) {
  const node = document.getElementById("announce");
  if (node) node.textContent = text;
}

/** The line under the header: idle, opening, open, cut or ended. */
export function setWire(state) {
  const wire = document.getElementById("wire");
  if (wire) wire.dataset.state = state;
}

// ------------------------------------------------------------------------------------------- theme

const THEMES = ["auto", "light", "dark"];

export function theme() {
  const stored = read(localStorage, "openline.theme");
  return THEMES.includes(stored) ? stored : "auto";
}

export function setTheme(name) {
  write(localStorage, "openline.theme", name);
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  const button = document.getElementById("theme-button");
  if (button) {
    button.textContent = name[0].toUpperCase() + name.slice(1);
    button.setAttribute("aria-label", `Colours: ${name}. Change`);
  }
  window.dispatchEvent(new Event("openline-theme"));
}

export function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
}

/** Storage can be refused (private windows, policies); the console then just forgets. */
export function read(storage, name) {
  try {
    return storage.getItem(name);
  } catch {
    return null;
  }
}

export function write(storage, name, value) {
  try {
    if (value === null) storage.removeItem(name);
    else storage.setItem(name, value);
  } catch {
    /* refused: nothing to keep it in */
  }
}

// --------------------------------------------------------------------------------------- shortcuts

const scopes = new Map();

/** Set the shortcuts of a scope ("global", "view"): [{keys:["m"], label:"Mute", run(event)}]. */
export function shortcuts(scope, list) {
  if (list) scopes.set(scope, list);
  else scopes.delete(scope);
}

export function allShortcuts() {
  return [...scopes.entries()];
}

const isTyping = (target) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));

export function listenForShortcuts() {
  const handle = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("dialog").open) return;
    if (isTyping(event.target)) {
      if (event.key === "Escape" && event.type === "keydown") event.target.blur();
      return;
    }
    // Space and Enter on a focused control belong to that control.
    const isControl = event.target instanceof HTMLElement && event.target.closest("button, a, summary");
    if (isControl && (event.key === " " || event.key === "Enter")) return;
    for (const list of [...scopes.values()].reverse()) {
      const found = list.find((entry) => entry.keys.includes(event.key) && (entry.on ?? "keydown") === event.type);
      if (!found) continue;
      event.preventDefault();
      if (!event.repeat || found.repeats) found.run(event);
      return;
    }
  };
  window.addEventListener("keydown", handle);
  window.addEventListener("keyup", handle);
}

// ----------------------------------------------------------------------------------------- dialogs

export function dialog(title, ...content) {
  const node = document.getElementById("dialog");
  const close = h("button", { type: "button", class: "quiet", onclick: () => node.close() }, "Close");
  replace(node, h("div", { class: "dialog-head" }, h("h2", { id: "dialog-title" }, title), close), ...content);
  if (!node.open) node.showModal();
  return node;
}

export function closeDialog() {
  document.getElementById("dialog").close();
}

/**
 * Keep a list at its end while its reader is there; also when the list is made smaller, which moves nobody and so
 * must not count as scrolling away. Returns a function to call after each addition; `isOn()` false: does nothing.
 */
export function keepAtEnd(scroller, isOn) {
  let isAtEnd = true;
  const follow = () => {
    if (isAtEnd && isOn()) scroller.scrollTop = scroller.scrollHeight;
  };
  scroller.addEventListener("scroll", () => {
    isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
  });
  new ResizeObserver(follow).observe(scroller);
  return follow;
}
