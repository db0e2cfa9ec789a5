// Routes, the header, the help overlay. Each view is a function (main, argument) -> function that closes it.

import { key, setKey } from "./api.js";
import { allShortcuts, closeDialog, dialog, h, listenForShortcuts, nextTheme, setTheme, shortcuts, theme } from "./dom.js";
import { playbackView } from "./playback.js";
import { sessionsView } from "./sessions.js";
import { talkView } from "./talk.js";
import { watchView } from "./watch.js";

const ROUTES = [
  { pattern: /^#\/sessions\/([^/]+)\/play$/, view: playbackView, nav: "sessions", title: "Playback" },
  { pattern: /^#\/sessions\/([^/]+)$/, view: watchView, nav: "sessions", title: "Watch" },
  { pattern: /^#\/sessions\/?$/, view: sessionsView, nav: "sessions", title: "Sessions" },
  { pattern: /^#\/talk\/([^/]+)$/, view: talkView, nav: "talk", title: "Talk" },
  { pattern: /^(#\/talk\/?|#\/?|)$/, view: talkView, nav: "talk", title: "Talk" },
];

const main = document.getElementById("main");
let close = () => {};

function go() {
  const route = ROUTES.find(({ pattern }) => pattern.test(location.hash));
  if (!route) {
    if (location.hash === "#main") main.focus();
    else location.replace("#/talk");
    return;
  }
  close();
  shortcuts("view", null);
  const [, argument] = route.pattern.exec(location.hash);
  document.title = `${route.title}${argument?.startsWith("#") || !argument ? "" : ` ${argument}`} · Openline`;
  for (const link of document.querySelectorAll("nav [data-route]")) {
    if (link.dataset.route === route.nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = route.title.toLowerCase();
  const id = argument && !argument.startsWith("#") ? decodeURIComponent(argument) : undefined;
  close = route.view(main, id);
  window.scrollTo(0, 0);
}

const NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "esc" };

function help() {
  const titles = { global: "Everywhere", view: "On this page" };
  const groups = allShortcuts().map(([scope, list]) =>
    h("section", {}, h("h3", {}, titles[scope]), h("dl", { class: "keys" }, list.filter((entry) => entry.label).map((entry) =>
      h("div", {}, h("dt", {}, entry.keys.map((name) => h("kbd", {}, NAMES[name] ?? name))), h("dd", {}, entry.label))))));
  dialog("Keyboard", ...groups.reverse());
}

function askKey() {
  const field = h("input", { type: "password", value: key(), autocomplete: "off", "aria-label": "API key", placeholder: "none" });
  const save = (event) => {
    event.preventDefault();
    setKey(field.value.trim());
    showKey();
    closeDialog();
    go();
  };
  dialog("API key", h("form", { onsubmit: save }, h("p", { class: "fine" }, "Kept in this tab only, until it closes. A gateway on this machine needs none."),
    field, h("p", { class: "form-buttons" }, h("button", { type: "submit", class: "primary" }, "Use this key"))));
  field.focus();
}

function showKey() {
  document.getElementById("key-button").textContent = key() ? "Key set" : "Key";
}

shortcuts("global", [
  { keys: ["?"], label: "This help", run: help },
  { keys: ["1"], label: "Talk", run: () => (location.hash = "#/talk") },
  { keys: ["2"], label: "Sessions", run: () => (location.hash = "#/sessions") },
  { keys: ["d"], label: "Light, dark or automatic colours", run: nextTheme },
]);
listenForShortcuts();
setTheme(theme());
showKey();
document.getElementById("theme-button").addEventListener("click", nextTheme);
document.getElementById("help-button").addEventListener("click", help);
document.getElementById("key-button").addEventListener("click", askKey);
document.getElementById("dialog").addEventListener("click", (event) => {
  if (event.target.id === "dialog") closeDialog();
});
window.addEventListener("hashchange", go);
window.addEventListener("openline-reload", go);
// A page put aside by the browser holds no streams (they count against the few a host is given) and no line.
window.addEventListener("pagehide", () => {
  close();
  close = () => {};
});
window.addEventListener("pageshow", (event) => event.persisted && go());
go();
