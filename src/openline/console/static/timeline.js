// The line, drawn: time runs right, the caller above, the agent below, tools underneath. Where the line was
// cut it is broken. One drawing for the live call, the watched session and the recording.

/** Room left of the time axis for the lane names, and right of it; narrow screens have none to give. */
/** Pixels from one bar of the live levels to the next, at least. */
const BAR_EVERY = 2.4;
const gutter = (width) => (width > 700 ? { left: 104, right: 36 } : { left: 14, right: 14 });

export class Timeline {
  /** `onseek(ms)` makes it clickable. Data set with `show`; times in ms on one axis. */
  constructor(canvas, { onseek = null, onhover = null } = {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.pad = gutter(0);
    this.width = this.inner = 1;
    this.data = { spans: [], marks: [], gaps: [], levels: null, waves: null, begin: 0, end: 1000 };
    this.view = { from: 0, to: 1000 };
    this.playhead = null;
    this.selected = null;
    this.onseek = onseek;
    this.onhover = onhover;
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(canvas);
    this.redraw = () => {
      this.colours = null;
      this.draw();
    };
    window.addEventListener("openline-theme", this.redraw);
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.media.addEventListener("change", this.redraw);
    if (onseek) this.#listen();
  }

  close() {
    this.observer.disconnect();
    window.removeEventListener("openline-theme", this.redraw);
    this.media.removeEventListener("change", this.redraw);
  }

  show(data, view = null) {
    Object.assign(this.data, data);
    if (view) this.view = view;
    this.draw();
  }

  x(ms) {
    const { from, to } = this.view;
    return this.pad.left + ((ms - from) / Math.max(1, to - from)) * this.inner;
  }

  ms(x) {
    const { from, to } = this.view;
    return from + ((x - this.pad.left) / Math.max(1, this.inner)) * (to - from);
  }

  #listen() {
    let isDown = false;
    const at = (event) => this.ms(event.clientX - this.canvas.getBoundingClientRect().left);
    this.canvas.addEventListener("pointerdown", (event) => {
      isDown = true;
      this.canvas.setPointerCapture(event.pointerId);
      this.onseek(at(event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (isDown) this.onseek(at(event));
      this.onhover?.(at(event));
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => (isDown = false));
    this.canvas.addEventListener("pointerleave", () => this.onhover?.(null));
  }

  #palette() {
    if (this.colours) return this.colours;
    const style = getComputedStyle(document.documentElement);
    const names = ["ink", "faint", "rule", "caller", "agent", "tool", "cut", "paper", "muted"];
    this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.colours.font = `10px ${style.getPropertyValue("--mono").trim()}`;
    return this.colours;
  }

  draw() {
    const box = this.canvas.getBoundingClientRect();
    if (box.width === 0) return;
    const ratio = window.devicePixelRatio || 1;
    const pixels = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (this.canvas.width !== pixels[0] || this.canvas.height !== pixels[1]) [this.canvas.width, this.canvas.height] = pixels;
    [this.width, this.height] = [box.width, box.height];
    this.pad = gutter(box.width);
    this.inner = this.width - this.pad.left - this.pad.right;
    // Below the axis: the agent's half, then 17 px of tools, then 18 px of time labels.
    this.reach = Math.max(12, (this.height - 4 - 17 - 18) / 2);
    this.axis = Math.round(4 + this.reach) + 0.5;
    const context = this.context;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const colours = this.#palette();
    context.save();
    context.beginPath();
    context.rect(this.pad.left - 12, 0, this.inner + 24, this.height);
    context.clip();
    this.#scale(context, colours);
    this.#spans(context, colours);
    if (this.data.waves) this.#waves(context, colours);
    if (this.data.levels) this.#levels(context, colours);
    this.#line(context, colours);
    this.#marks(context, colours);
    this.#head(context, colours);
    context.restore();
  }

  #scale(context, colours) {
    const width = this.view.to - this.view.from;
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].map((s) => s * 1000).find((ms) => (ms / width) * this.inner > 68) ?? 7_200_000;
    context.font = colours.font;
    context.textAlign = "center";
    context.fillStyle = colours.faint;
    context.strokeStyle = colours.rule;
    for (let at = Math.ceil(Math.max(0, this.view.from) / step) * step; at <= this.view.to; at += step) {
      const x = Math.round(this.x(at)) + 0.5;
      stroke(context, x, 2, x, this.height - 16);
      const seconds = Math.round(at / 1000);
      context.fillText(`${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`, x, this.height - 5);
    }
  }

  #spans(context, colours) {
    const lanes = {
      caller: { y: this.axis - this.reach, height: this.reach, colour: colours.caller },
      agent: { y: this.axis, height: this.reach, colour: colours.agent },
      tool: { y: this.axis + this.reach + 5, height: 8, colour: colours.tool },
    };
    for (const span of this.data.spans) {
      const lane = lanes[span.lane];
      const from = this.x(span.from);
      const to = Math.max(from + 2, this.x(span.to ?? this.data.end));
      if (!lane || to < 0 || from > this.width) continue;
      context.globalAlpha = span.lane === "tool" ? 0.9 : this.data.waves || this.data.levels ? 0.1 : 0.26;
      context.fillStyle = lane.colour;
      context.fillRect(from, lane.y, to - from, lane.height);
      context.globalAlpha = 1;
      if (span.lane === "tool") this.#toolLabel(context, colours, span, to, lane);
      else {
        context.fillRect(from, span.lane === "caller" ? lane.y : lane.y + lane.height - 2, to - from, 2);
        if (span.isCut) this.#tear(context, colours, to, lane);
      }
    }
  }

  #toolLabel(context, colours, span, to, lane) {
    const later = this.data.spans.slice(this.data.spans.indexOf(span) + 1).find((each) => each.lane === "tool");
    const room = later ? this.x(later.from) - to - 9 : Infinity;
    let text = span.label;
    while (text && context.measureText(text).width > room) text = text.length > 2 ? `${text.slice(0, -2)}…` : "";
    context.fillStyle = colours.muted;
    context.textAlign = "left";
    context.fillText(text, to + 5, lane.y + 8);
  }

  /** The ragged edge of something that was cut off. */
  #tear(context, colours, x, lane) {
    context.strokeStyle = colours.cut;
    context.lineWidth = 1.5;
    context.beginPath();
    const teeth = 6;
    for (let tooth = 0; tooth <= teeth; tooth += 1) {
      context.lineTo(x + (tooth % 2 ? 3 : -1), lane.y + (lane.height * tooth) / teeth);
    }
    context.stroke();
    context.lineWidth = 1;
  }

  #waves(context, colours) {
    const { caller, agent } = this.data.waves;
    this.#wave(context, colours.caller, caller, -1);
    this.#wave(context, colours.agent, agent, 1);
  }

  #wave(context, colour, peaks, sign) {
    const { bucketMs, scale } = this.data.waves;
    context.fillStyle = colour;
    for (let x = this.pad.left; x < this.width - this.pad.right; x += 2) {
      const low = Math.max(0, Math.floor(this.ms(x) / bucketMs));
      const high = Math.min(peaks.length, Math.max(low + 1, Math.ceil(this.ms(x + 2) / bucketMs)));
      let peak = 0;
      for (let index = low; index < high; index += 1) if (peaks[index] > peak) peak = peaks[index];
      const size = shape(peak * scale) * (this.reach - 3);
      if (size > 0.4) context.fillRect(x, sign < 0 ? this.axis - size : this.axis, 1.4, size);
    }
  }

  /** Live levels: [{at, caller, agent}] every 50 ms. */
  #levels(context, colours) {
    const msPerPixel = (this.view.to - this.view.from) / this.inner;
    // On a narrow screen several levels share a bar, or the bars would run together.
    const each = Math.max(1, Math.ceil((BAR_EVERY * msPerPixel) / 50));
    const bar = Math.max(1.2, ((each * 50) / msPerPixel) * 0.62);
    const bars = new Map();
    for (const level of this.data.levels) {
      if (level.at < this.view.from || level.at > this.view.to) continue;
      const place = Math.floor(level.at / (each * 50));
      const seen = bars.get(place) ?? { at: level.at, caller: 0, agent: 0 };
      bars.set(place, { at: seen.at, caller: Math.max(seen.caller, level.caller), agent: Math.max(seen.agent, level.agent) });
    }
    for (const level of bars.values()) {
      const x = this.x(level.at);
      const up = shape(level.caller * 2) * (this.reach - 3);
      const down = shape(level.agent * 2) * (this.reach - 3);
      context.fillStyle = colours.caller;
      if (up > 0.5) context.fillRect(x, this.axis - up, bar, up);
      context.fillStyle = colours.agent;
      if (down > 0.5) context.fillRect(x, this.axis, bar, down);
    }
  }

  #line(context, colours) {
    const left = this.pad.left;
    const right = this.width - this.pad.right;
    const begin = Math.max(left, this.x(this.data.begin));
    const end = Math.min(right, this.x(this.data.end));
    context.lineWidth = 1.5;
    let from = begin;
    for (const gap of this.data.gaps) {
      const gapFrom = this.x(gap.from);
      const gapTo = Math.max(gapFrom + 6, gap.to === null ? end : this.x(gap.to));
      if (gapTo < left || gapFrom > right) continue;
      context.strokeStyle = colours.ink;
      stroke(context, from, this.axis, gapFrom, this.axis);
      // The broken ends bend away from each other, and the gap stays empty: nothing travelled there.
      context.strokeStyle = colours.cut;
      stroke(context, gapFrom, this.axis, gapFrom + 4, this.axis - 7);
      if (gap.to !== null) stroke(context, gapTo, this.axis, gapTo - 4, this.axis + 7);
      context.setLineDash([1, 5]);
      stroke(context, gapFrom + 6, this.axis, gapTo - 6, this.axis);
      context.setLineDash([]);
      from = gapTo;
    }
    context.strokeStyle = colours.ink;
    if (!this.data.gaps.some((gap) => gap.to === null)) stroke(context, from, this.axis, end, this.axis);
    context.lineWidth = 1;
  }

  #marks(context, colours) {
    for (const mark of this.data.marks) {
      const x = Math.round(this.x(mark.at)) + 0.5;
      if (x < 0 || x > this.width) continue;
      const isChosen = this.selected !== null && mark.seq === this.selected;
      if (mark.kind === "commit") dot(context, x, this.axis, isChosen ? 5 : 3.5, colours.paper, colours.ink);
      else if (mark.kind === "interruption") this.#slash(context, x, colours.cut);
      else if (mark.kind === "link" || mark.kind === "epoch") diamond(context, x, this.axis, 4, colours.ink);
      else if (mark.kind === "end") {
        context.strokeStyle = colours.ink;
        stroke(context, x, this.axis - 7, x, this.axis + 7);
      }
    }
  }

  #slash(context, x, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    stroke(context, x - 6, this.axis + 15, x + 6, this.axis - 15);
    context.lineWidth = 1;
  }

  #head(context, colours) {
    if (this.playhead === null) return;
    const x = Math.round(this.x(this.playhead)) + 0.5;
    context.strokeStyle = colours.ink;
    stroke(context, x, 4, x, this.height - 18);
    context.fillStyle = colours.ink;
    context.beginPath();
    context.moveTo(x - 4, 2);
    context.lineTo(x + 4, 2);
    context.lineTo(x, 8);
    context.fill();
  }
}

/** Quiet speech stays visible: loudness is nearer to a root than to the raw amplitude. */
const shape = (level) => Math.min(1, Math.max(0, level)) ** 0.6;

function stroke(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

function dot(context, x, y, radius, fill, line) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.strokeStyle = line;
  context.lineWidth = 1.5;
  context.fill();
  context.stroke();
  context.lineWidth = 1;
}

function diamond(context, x, y, radius, fill) {
  context.beginPath();
  context.moveTo(x, y - radius);
  context.lineTo(x + radius, y);
  context.lineTo(x, y + radius);
  context.lineTo(x - radius, y);
  context.fillStyle = fill;
  context.fill();
}
