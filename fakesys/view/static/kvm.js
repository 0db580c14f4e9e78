// VMs with their vCPUs, APICv, memory and counters; counters that move have a curve.

import { byId, definitions, element, table } from "./dom.js";

const RUN = {
  guest: "in guest", halted: "halted", uninit: "waits for INIT",
  host: "out: in the host", preempted: "out: preempted", stopped: "out: stopped",
};
const PAST = 60;
const SVG = "http://www.w3.org/2000/svg";

export class KvmView {
  constructor(values) {
    this.values = values;
    this.articles = new Map();
    this.past = new Map();
  }

  show(touched) {
    const vms = [...this.values].filter(([key]) => key.startsWith("kvm/vm/"));
    byId("kvm-sum").textContent = `${vms.length} ${vms.length === 1 ? "VM" : "VMs"}`;
    for (const [key, article] of this.articles) {
      if (this.values.has(key)) continue;
      article.remove();
      this.articles.delete(key);
      this.past.delete(key);
    }
    for (const [key, vm] of vms) {
      if (touched.has(key) || !this.articles.has(key)) this.showArticle(key, ofVm(vm, this.curves(key, vm.counters)));
    }
    const counters = this.values.get("kvm/counters");
    if (counters && (touched.has("kvm/counters") || !this.articles.has("kvm/counters"))) {
      const rows = this.curves("kvm/counters", counters);
      this.showArticle("kvm/counters", [element("h3", "All VMs together"), details("Counters of debug/kvm", table("Counters", ["name", "value", "lately"], rows), true)]);
    }
    if (!this.articles.size) byId("vms").replaceChildren(element("p", "No VM yet: write to fakesys/kvm/ctl."));
    else byId("vms").querySelector(":scope > p")?.remove();
  }

  showArticle(key, parts) {
    const old = this.articles.get(key);
    const made = element("article", { class: "vm" }, ...(key.startsWith("kvm/vm/") ? [element("h3", key.slice(7))] : []), ...parts);
    this.articles.set(key, made);
    if (!old) {
      byId("vms").append(made);
      return;
    }
    // What was open stays open.
    const open = [...old.querySelectorAll("details")].map((one) => one.open);
    [...made.querySelectorAll("details")].forEach((one, index) => (one.open = open[index] ?? one.open));
    const focused = [...old.querySelectorAll("summary, [tabindex]")].indexOf(document.activeElement);
    old.replaceWith(made);
    if (focused >= 0) made.querySelectorAll("summary, [tabindex]")[focused]?.focus();
  }

  // Rows of counters, each with what it was lately.
  curves(key, counters) {
    const past = this.past.get(key) ?? new Map();
    this.past.set(key, past);
    return Object.entries(counters).map(([name, count]) => {
      const line = past.get(name) ?? [];
      line.push(count);
      if (line.length > PAST) line.shift();
      past.set(name, line);
      return [name, String(count), curve(line)];
    });
  }
}

function ofVm(vm, counters) {
  const pairs = [["APICv", vm.apicv]];
  if (vm.reasons.length) pairs.push(["inhibited by", vm.reasons.map(([name, words]) => `${name}: ${words}`).join("; ")]);
  pairs.push(["irqchip", vm.state.irqchip ?? "-"], ["generation", `memslots ${vm.mmu.generation}, pages ${vm.mmu.valid_gen}`]);
  const vcpus = vm.vcpus.map(([name, run, active]) => element("li", { class: run === "guest" ? "in" : "" },
    `${name}: ${RUN[run] ?? run}${active === "0" ? ", APICv off" : ""}`));
  const parts = [definitions(pairs), element("ul", { class: "vcpus", "aria-label": "vCPUs", tabindex: "0" }, ...vcpus)];
  parts.push(details(`Memslots (${vm.memslots.length})`, lines("Memslots", vm.memslots.map((line) => line.split(" ")), ["id", "gpa", "size", "flags", "memory"]), true));
  parts.push(details(`Pages (${vm.pages.reduce((sum, page) => sum + page[3], 0)})`,
    lines("Shadow and TDP pages", vm.pages.map((page) => page.map(String)), ["level", "generation", "flags", "pages"]), true));
  parts.push(details("Counters of the vCPUs", table("Counters", ["name", "value", "lately"], counters), false));
  return parts;
}

const lines = (label, rows, heads) => (rows.length ? table(label, heads, rows) : element("p", "none"));

function details(title, content, open) {
  const made = element("details", element("summary", title), element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": title }, content));
  made.open = open;
  return made;
}

function curve(line) {
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", "curve");
  made.setAttribute("viewBox", `0 0 ${PAST} 16`);
  made.setAttribute("preserveAspectRatio", "none");
  made.setAttribute("aria-hidden", "true");
  const low = Math.min(...line), span = Math.max(...line) - low;
  if (!span) return made;
  const path = document.createElementNS(SVG, "polyline");
  path.setAttribute("points", line.map((count, x) => `${x + PAST - line.length},${15 - (14 * (count - low)) / span}`).join(" "));
  made.append(path);
  return made;
}
