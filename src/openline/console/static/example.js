// What the line looks like, drawn before the first call: an example, and named as one.

import { h } from "./dom.js";

const SPOKEN = [
  { who: "caller", from: 1000, to: 3200 },
  { who: "agent", from: 4300, to: 8600 },
  { who: "caller", from: 8400, to: 10_300 },
  { who: "agent", from: 11_300, to: 14_000 },
  { who: "agent", from: 16_400, to: 20_200 },
  { who: "caller", from: 21_100, to: 22_300 },
];

/** The same shape of data that a live call gives to the timeline. */
export function example() {
  const levels = [];
  for (let at = 0; at < 23_400; at += 50) {
    const level = { at, caller: 0, agent: 0 };
    for (const { who, from, to } of SPOKEN) if (at >= from && at < to) level[who] = loudness(at, who);
    levels.push(level);
  }
  return {
    levels, begin: 0, end: 23_400,
    spans: [{ lane: "tool", from: 3600, to: 4200, label: "stock" }, { lane: "agent", from: 4300, to: 8600, isCut: true }],
    marks: [{ at: 3500, kind: "commit" }, { at: 8600, kind: "interruption" }, { at: 10_700, kind: "commit" }, { at: 22_800, kind: "commit" }],
    gaps: [{ from: 14_000, to: 16_300 }],
  };
}

/** Syllables and words out of a few sines: the same picture at every visit. */
function loudness(at, who) {
  const t = at / 1000 + (who === "agent" ? 7.3 : 0);
  const syllable = Math.abs(Math.sin(t * 8.3 + Math.sin(t * 3.1)));
  const phrase = 0.45 + 0.55 * Math.abs(Math.sin(t * 1.7 + 1));
  return 0.02 + 0.2 * syllable * phrase * (Math.sin(t * 5.9) < -0.9 ? 0.1 : 1);
}

const SVG = "http://www.w3.org/2000/svg";

function glyph(...parts) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 26 16");
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, attributes] of parts) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    svg.append(node);
  }
  return svg;
}

export function legend() {
  const line = ["path", { d: "M0 8H26" }];
  return h("ul", { class: "legend", "aria-label": "How to read the line" },
    h("li", { class: "example" }, "An example"),
    h("li", {}, glyph(line, ["circle", { cx: 13, cy: 8, r: 3.5, class: "ring" }]), "a turn is committed"),
    h("li", {}, glyph(["rect", { x: 2, y: 4, width: 22, height: 8, class: "block" }]), "a tool runs"),
    h("li", {}, glyph(line, ["path", { d: "M9 15L17 1", class: "red", "stroke-width": 2 }]), "you interrupt the agent"),
    h("li", {}, glyph(["path", { d: "M0 8H7M19 8H26" }], ["path", { d: "M7 8L11 2M19 8L15 14", class: "red" }]), "the line is cut, and resumes"));
}
