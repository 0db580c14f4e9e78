// The page: what the server sends, by key, handed to the parts that show it.
// Text of the mount is set by textContent only.

import { ApView } from "./ap.js";
import { KvmView } from "./kvm.js";
import { StreamsView } from "./streams.js";
import { byId } from "./dom.js";

const values = new Map();
const ap = new ApView(values);
const kvm = new KvmView(values);
const streams = new StreamsView();

function showHead() {
  const text = (key, otherwise = "") => values.get(`mount/${key}`) ?? otherwise;
  byId("point").textContent = text("point");
  byId("profile").textContent = text("profile") && `profile ${text("profile")}, fakesys ${text("version")}`;
  byId("last-error").textContent = text("last_error") || "no";
  document.title = `fakesys ${text("point")}`;
}

function showStatus(text, bad) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

function take(news) {
  if (news.whole) {
    values.clear();
    streams.clear();
  }
  if (news.control) byId("control").hidden = false;
  const touched = new Set(news.gone ?? []);
  for (const key of touched) values.delete(key);
  for (const [key, value] of Object.entries(news.set ?? {})) {
    values.set(key, value);
    touched.add(key);
  }
  const any = (prefix) => news.whole || [...touched].some((key) => key.startsWith(prefix));
  if (any("mount/")) showHead();
  if (any("ap/")) ap.show();
  if (any("kvm/")) kvm.show(touched);
  streams.add(news.lines ?? {}, news.missed ?? {});
  if (news.trouble !== undefined) showStatus(news.trouble || "live", Boolean(news.trouble));
  else if (news.whole) showStatus("live", false);
}

const source = new EventSource("events");
source.onmessage = (event) => take(JSON.parse(event.data));
source.onerror = () => showStatus("fakesys view has ended, or cannot be reached", true);

for (const form of document.querySelectorAll("form[data-action]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = { action: form.dataset.action, ...Object.fromEntries(new FormData(form)) };
    const answer = await fetch("control", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(words),
    });
    const said = answer.ok ? (await answer.json()).result : await answer.text();
    byId("result").textContent = `${form.querySelector("button").textContent}: ${said}`;
  });
}
