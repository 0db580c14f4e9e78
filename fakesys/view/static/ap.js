// Adapters by domains on a canvas, the same as a table, and the mediated devices beside it.

import { byId, definitions, element } from "./dom.js";
import { bits, hex2, hex4, owners, ranges, KINDS } from "./owners.js";

const LABEL = 44, TOP = 40, BAND = 6;
const SMALLEST = 1, LARGEST = 42;
// With more domains the picture has the whole width of the page.
const BROAD = 48;

export class ApView {
  constructor(values) {
    this.values = values;
    this.canvas = byId("grid");
    this.zoom = 0;
    this.cursor = [0, 0];
    this.model = owners(values);
    for (const kind of KINDS.slice(1)) {
      byId("legend").append(element("li", element("b", { class: `k-${kind.name}` }, kind.letter), kind.words));
    }
    byId("legend").append(element("li", "edge filled: the host's by apmask or aqmask; hollow: given away"));
    byId("larger").onclick = () => this.resize((size) => Math.min(LARGEST, Math.ceil(size * 1.5)));
    byId("smaller").onclick = () => this.resize((size) => Math.max(SMALLEST, Math.floor(size / 1.5)));
    byId("fit").onclick = () => this.resize(() => 0);
    byId("table-details").addEventListener("toggle", () => this.showTable());
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    byId("scroller").addEventListener("keydown", (event) => this.key(event));
    addEventListener("resize", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show() {
    this.model = owners(this.values);
    byId("ap-parts").classList.toggle("broad", this.model.domains.length > BROAD);
    this.draw();
    this.showTable();
    this.showMdevs();
    this.fillChoices();
    const { cards, domains, counts } = this.model;
    const queues = counts.reduce((sum, count) => sum + count, 0);
    byId("ap-sum").textContent = `${cards.length} adapters, ${domains.length} domains, ${queues} queues`;
  }

  size() {
    if (this.zoom) return this.zoom;
    const width = byId("scroller").clientWidth - LABEL - 8;
    return Math.max(SMALLEST, Math.min(LARGEST, Math.floor(width / Math.max(1, this.model.domains.length))));
  }

  resize(change) {
    this.zoom = change(this.size());
    this.draw();
  }

  draw() {
    const { cards, domains } = this.model;
    const size = this.size(), ratio = devicePixelRatio || 1;
    const width = LABEL + domains.length * size + 2, height = TOP + cards.length * size + 2;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    this.drawCells(context, size);
    this.drawEdges(context, size);
    this.drawCursor(context, size);
  }

  drawCells(context, size) {
    const { cards, domains, kinds } = this.model;
    const gap = size >= 6 ? 1 : 0;
    context.font = `600 ${Math.min(15, size - 4)}px ui-monospace, "DejaVu Sans Mono", monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    cards.forEach((card, y) => domains.forEach((domain, x) => {
      const kind = KINDS[kinds[y][domain]];
      if (!kind.letter) return;
      const left = LABEL + x * size, top = TOP + y * size;
      context.fillStyle = kind.colour;
      context.fillRect(left, top, size - gap, size - gap);
      if (size < 12) return;
      context.fillStyle = "#111";
      context.fillText(kind.letter, left + (size - gap) / 2, top + (size - gap) / 2 + 1);
    }));
  }

  // The bit of apmask left of each row, the bit of aqmask above each column, with numbers.
  drawEdges(context, size) {
    const { cards, domains, apmask, aqmask } = this.model;
    const ink = getComputedStyle(document.body).color;
    context.fillStyle = context.strokeStyle = ink;
    context.font = '11px ui-monospace, "DejaVu Sans Mono", monospace';
    const step = Math.ceil(14 / size);
    const edge = (filled, ...box) => (filled ? context.fillRect(...box) : context.strokeRect(...box));
    context.lineWidth = 0.6;
    context.textAlign = "right";
    cards.forEach((card, y) => {
      const top = TOP + y * size;
      edge(apmask[card.id], LABEL - BAND - 3, top + 0.5, BAND, Math.max(1.5, size - 2));
      if (y % step === 0) context.fillText(hex2(card.id), LABEL - BAND - 8, top + size / 2);
    });
    const upright = size < 30, wide = Math.ceil(14 / size);
    domains.forEach((domain, x) => {
      const left = LABEL + x * size;
      edge(aqmask[domain], left + 0.5, TOP - BAND - 3, Math.max(1.5, size - 2), BAND);
      if (x % wide) return;
      context.save();
      context.translate(left + size / 2, TOP - BAND - 7);
      if (upright) context.rotate(-Math.PI / 2);
      context.textAlign = upright ? "left" : "center";
      context.textBaseline = upright ? "middle" : "bottom";
      context.fillText(hex4(domain), 0, 0);
      context.restore();
    });
  }

  drawCursor(context, size) {
    if (!this.model.cards.length) return;
    context.strokeStyle = getComputedStyle(document.body).color;
    context.lineWidth = 2;
    context.strokeRect(LABEL + this.cursor[0] * size, TOP + this.cursor[1] * size, Math.max(size - 1, 3), Math.max(size - 1, 3));
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), size = this.size();
    this.move(
      Math.floor((event.clientX - box.left - LABEL) / size),
      Math.floor((event.clientY - box.top - TOP) / size),
    );
  }

  key(event) {
    const [x, y] = this.cursor, { cards, domains } = this.model;
    const places = {
      ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1],
      Home: [0, y], End: [domains.length - 1, y], PageUp: [x, Math.max(0, y - 16)], PageDown: [x, Math.min(cards.length - 1, y + 16)],
    };
    const place = places[event.key];
    if (!place || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.move(...place);
    this.showCursor();
  }

  // A cursor that is moved by keys is never out of sight.
  showCursor() {
    const box = byId("scroller"), size = this.size();
    const left = LABEL + this.cursor[0] * size, top = TOP + this.cursor[1] * size;
    box.scrollLeft = Math.max(Math.min(box.scrollLeft, left - LABEL), left + size + 2 - box.clientWidth);
    box.scrollTop = Math.max(Math.min(box.scrollTop, top - TOP), top + size + 2 - box.clientHeight);
  }

  move(x, y) {
    const { cards, domains, kinds } = this.model;
    if (!(x >= 0 && y >= 0 && x < domains.length && y < cards.length)) return;
    if (x === this.cursor[0] && y === this.cursor[1] && this.asked) return;
    this.cursor = [x, y];
    this.draw();
    const name = `${hex2(cards[y].id)}.${hex4(domains[x])}`;
    byId("about").textContent = this.about(name, KINDS[kinds[y][domains[x]]], cards[y].id, domains[x]);
    clearTimeout(this.asked);
    this.asked = setTimeout(() => this.ask(name), 120);
  }

  about(name, kind, adapter, domain) {
    const users = this.model.mdevs
      .filter((mdev) => mdev.adapters[adapter] && mdev.domains[domain])
      .map((mdev) => `${mdev.uuid}${mdev.guest ? ` of guest ${mdev.guest}` : ""}`);
    return [`${name}: ${kind.words}`, ...users].join("; ");
  }

  async ask(name) {
    const answer = await fetch(`queue/${name}`);
    if (!answer.ok) return;
    const said = await answer.json();
    const about = byId("about");
    if (!about.textContent.startsWith(name) || said.driver === undefined && said.status === undefined) return;
    const facts = ["status", "driver", "online", "config", "chkstop"]
      .filter((key) => key in said).map((key) => `${key} ${said[key]}`);
    about.textContent = `${about.textContent.split(" — ")[0]} — ${said.path}: ${facts.join(", ")}`;
  }

  showTable() {
    if (!byId("table-details").open) return;
    const { cards, domains, kinds, apmask } = this.model;
    const rows = cards.map((card, y) => {
      const parts = KINDS.map((kind, index) => [kind, domains.filter((domain) => kinds[y][domain] === index)])
        .filter(([kind, found]) => kind.letter && found.length)
        .map(([kind, found]) => `${kind.words}: ${ranges(found)}`);
      const state = [card.type, card.mode, card.config ? "" : "deconfigured", card.chkstop ? "checkstopped" : ""];
      return element("tr", element("th", { scope: "row" }, hex2(card.id)),
        element("td", state.filter(Boolean).join(" ")), element("td", apmask[card.id] ? "host" : "given away"),
        element("td", parts.join("; ") || "no queues"));
    });
    byId("ap-table").tBodies[0].replaceChildren(...rows);
  }

  showMdevs() {
    const { mdevs, guests } = this.model;
    const made = mdevs.map((mdev) => element("article", { class: mdev.guest ? "mdev used" : "mdev" },
      element("code", mdev.uuid),
      definitions([
        ["guest", mdev.guest || "none"],
        ["matrix", product(mdev.matrix)],
        ["guest_matrix", mdev.guest ? product(mdev.shared) : "no guest"],
      ])));
    for (const [name, guest] of guests) {
      if (!guest.mdev) made.push(element("article", { class: "mdev" }, element("code", name), definitions([["guest", "without a device"]])));
    }
    if (!made.length) made.push(element("p", "No mediated device yet."));
    byId("mdevs").replaceChildren(...made);
  }

  fillChoices() {
    const choices = {
      cards: this.model.cards.map((card) => hex2(card.id)),
      guests: this.model.guests.map(([name]) => name),
      mdevs: this.model.mdevs.map((mdev) => mdev.uuid),
    };
    for (const select of document.querySelectorAll("select[data-from]")) {
      const wanted = choices[select.dataset.from];
      if (wanted.join("\n") === [...select.options].map((option) => option.value).join("\n")) continue;
      const chosen = select.value;
      select.replaceChildren(...wanted.map((text) => element("option", text)));
      if (wanted.includes(chosen)) select.value = chosen;
    }
  }
}

const product = (masks) => {
  const [adapters, domains, control] = masks.map(bits).map((mask) => [...mask.keys()].filter((id) => mask[id]));
  const text = `adapters ${ranges(adapters) || "none"}, domains ${ranges(domains) || "none"}`;
  return control.length ? `${text}, control domains ${ranges(control)}` : text;
};
