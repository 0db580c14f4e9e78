// Elements made of names and texts; there is no markup in any text.

export const byId = (id) => document.getElementById(id);

// element("td", "text") or element("tr", {class: "x"}, child, ...)
export function element(name, ...parts) {
  const made = document.createElement(name);
  for (const part of parts) {
    if (part instanceof Node || typeof part === "string") made.append(part);
    else for (const [key, value] of Object.entries(part)) made.setAttribute(key, value);
  }
  return made;
}

export const row = (cells) => element("tr", ...cells.map((cell) => element("td", cell)));

export function table(label, heads, rows) {
  const head = element("tr", ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = element("tbody", ...rows.map(row));
  return element("table", { "aria-label": label }, element("thead", head), body);
}

export function definitions(pairs) {
  const list = element("dl");
  for (const [term, text] of pairs) list.append(element("dt", term), element("dd", text));
  return list;
}
