// Streams, the newest line first; each can be paused and filtered.

import { byId, element } from "./dom.js";

const MOST = 500;
const STREAMS = {
  writes: ["Writes", ["time", "by", "result", "path", "text", "reason"]],
  uevents: ["Uevents", ["action", "device", "fields"]],
  log: ["Kernel log", ["line"]],
  trace: ["Trace events", ["event"]],
};

class Stream {
  constructor(name, [title, heads]) {
    this.waiting = [];
    this.paused = false;
    this.body = element("tbody");
    this.filter = element("input", { type: "search", placeholder: "filter", "aria-label": `Filter ${title}` });
    this.filter.oninput = () => [...this.body.rows].forEach((row) => this.sift(row));
    this.button = element("button", { "aria-pressed": "false", "aria-label": `Pause ${title}` }, "Pause");
    this.button.onclick = () => this.pause(!this.paused);
    const head = element("tr", ...heads.map((text) => element("th", { scope: "col" }, text)));
    const lines = element("table", { "aria-label": title }, element("thead", head), this.body);
    byId("streams").append(element("div", { class: "stream", id: `stream-${name}` },
      element("div", { class: "bar" }, element("h3", title), element("div", { class: "tools" }, this.filter, this.button)),
      element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title }, lines)));
  }

  clear() {
    this.waiting = [];
    this.body.replaceChildren();
  }

  pause(paused) {
    this.paused = paused;
    this.button.setAttribute("aria-pressed", String(paused));
    if (!paused) this.add([]);
    this.button.textContent = paused ? "Resume" : "Pause";
  }

  add(lines) {
    this.waiting = [...this.waiting, ...lines].slice(-MOST);
    if (this.paused) {
      this.button.textContent = `Resume (${this.waiting.length})`;
      return;
    }
    const rows = this.waiting.map((cells) => this.row(cells)).reverse();
    this.waiting = [];
    this.body.prepend(...rows);
    while (this.body.rows.length > MOST) this.body.rows[MOST].remove();
  }

  row(cells) {
    const made = element("tr", { class: "fresh" }, ...cells.map((cell) => element("td", cell)));
    if (this.body.closest("#stream-writes") && cells.length > 2 && cells[2] !== "ok") made.cells[2].className = "bad";
    this.sift(made);
    return made;
  }

  sift(row) {
    row.hidden = !row.textContent.toLowerCase().includes(this.filter.value.toLowerCase());
  }
}

export class StreamsView {
  constructor() {
    this.streams = new Map(Object.entries(STREAMS).map(([name, words]) => [name, new Stream(name, words)]));
    this.streams.get("trace").add([["Start fakesys view with --trace to see them here: it takes them from trace_pipe."]]);
  }

  clear() {
    for (const [name, stream] of this.streams) if (name !== "trace") stream.clear();
  }

  add(lines, missed) {
    for (const [name, added] of Object.entries(lines)) {
      const gap = missed[name] ? [[`${missed[name]} lines left out`]] : [];
      this.streams.get(name)?.add([...gap, ...added]);
    }
  }
}
